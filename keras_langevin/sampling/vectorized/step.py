"""A step of several chains as one compiled program, in the place of Keras' own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from keras_langevin.noise import seeds_of_chains


class JointStep:
    """The functions that `fit` calls for training and validation, as Keras has them on JAX, which
    advance all chains. What they return are means over the chains that go on.

    Args:
        model: The model of all chains.
        states: Their `ChainStates`.
        seeds: From a seed that the model's step knows to the seeds of the chains.

    Attributes:
        goes_on: Boolean array, one a chain: where false, the state stays as it is.
        logs: Of the last step of training, by name, an array with a number for each chain.
        test_logs: The same of the last validation.
    """

    def __init__(self, model, states, seeds):
        self.model, self.states, self.seeds = model, states, seeds
        self.goes_on = np.ones(states.num_chains, bool)
        self.logs, self.test_logs = {}, {}
        self._metrics = self._test_metrics = None
        self._train = jax.jit(self._train_steps, static_argnums=4, donate_argnums=(0, 1))
        self._test = jax.jit(self._test_steps, static_argnums=4, donate_argnums=1)

    def begin_epoch(self):
        self._metrics = None

    def begin_test(self):
        self._test_metrics = None

    def train_function(self, state, iterator):
        for batches, are_several in _of_one_shape(_next(iterator, self.model.steps_per_execution)):
            if self._metrics is None:
                self._metrics = self._repeated(state[3])
            stacks, metrics = self.states.stacks, self._metrics
            found = self._train(stacks, metrics, self.goes_on, batches, are_several)
            self.logs, logs, self.states.stacks, self._metrics, metrics = found
        return logs, (*state[:3], metrics)

    def test_function(self, state, iterator):
        for batches, are_several in _of_one_shape(_next(iterator, self.model.steps_per_execution)):
            if self._test_metrics is None:
                self._test_metrics = self._repeated(state[2])
            stacks, metrics = self.states.stacks[:2], self._test_metrics
            found = self._test(stacks, metrics, self.goes_on, batches, are_several)
            self.test_logs, logs, self._test_metrics, metrics = found
        return logs, (*state[:2], metrics)

    def _repeated(self, arrays):
        return [jnp.repeat(a[None], self.states.num_chains, axis=0) for a in arrays]

    def _train_steps(self, stacks, metrics, goes_on, batches, are_several):
        def of_chain(chain, goes_on, state, batch):
            with seeds_of_chains(self.seeds, chain):
                logs, new = self.model.train_step(state, batch)
            new = tuple(list(group) for group in new)
            return logs, _where(goes_on, new, state)

        def step(state, batch):
            logs, state = jax.vmap(of_chain, in_axes=(0, 0, 0, None))(
                np.arange(len(goes_on)), goes_on, state, batch
            )
            return state, logs

        (*stacks, metrics), logs = _scan(step, (*stacks, metrics), batches, are_several)
        means = _means(logs, goes_on), _means(metrics, goes_on)
        return logs, means[0], tuple(stacks), metrics, means[1]

    def _test_steps(self, stacks, metrics, goes_on, batches, are_several):
        def of_chain(stacks, metrics, batch):
            logs, (*_, metrics) = self.model.test_step((*stacks, metrics), batch)
            return logs, list(metrics)

        def step(metrics, batch):
            logs, metrics = jax.vmap(of_chain, in_axes=(0, 0, None))(stacks, metrics, batch)
            return metrics, logs

        metrics, logs = _scan(step, metrics, batches, are_several)
        return logs, _means(logs, goes_on), metrics, _means(metrics, goes_on)


def _next(iterator, count):
    """Up to `count` batches; none is the end, which the caller of `fit`'s functions expects."""
    return [next(iterator), *itertools.islice(iterator, count - 1)]


def _of_one_shape(batches):
    """Batches, each as it is, or stacks of several of equal shapes; and whether it is a stack."""
    for _, group in itertools.groupby(batches, key=_shapes):
        group = list(group)
        if len(group) == 1:
            yield group[0], False
        else:
            yield jax.tree.map(lambda *arrays: np.stack(arrays), *group), True


def _shapes(batch):
    return [(a.shape, str(a.dtype)) for a in jax.tree.leaves(batch)]


def _scan(step, state, batches, are_several):
    """The state after the steps, and the logs of the last."""
    if not are_several:
        return step(state, batches)
    state, logs = jax.lax.scan(step, state, batches)
    return state, jax.tree.map(lambda a: a[-1], logs)


def _where(condition, new, old):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _means(stacks, chosen):
    """Over the chains that are chosen, in the dtype of the stack."""

    def mean(stack):
        weights = jnp.reshape(chosen, (-1, *[1] * (stack.ndim - 1)))
        total = jnp.sum(jnp.where(weights, stack, 0), axis=0)
        return (total / jnp.sum(chosen)).astype(stack.dtype)

    return jax.tree.map(mean, stacks)
