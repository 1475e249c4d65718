"""Private names of Keras' optimizers: how a step is made, and what surrounds it."""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_langevin.distribution import num_loss_shares
from keras_langevin.weights import is_statistic, own_statistics


class JointOptimizer(keras.optimizers.Optimizer):
    """An optimizer whose step sees all variables at once and states its results as values.

    A subclass implements `step(parameters, gradients, learning_rate)`, which reads whatever
    it likes and yields `(variable, new value)` pairs for parameters and for its own state.
    All reads happen before the first write. Gradients arrive dense, summed over replicas,
    unscaled and averaged over accumulation steps. The statistics of tracked layers arrive on the
    same footing, by `read_statistics`.
    """

    statistics = None  # which set of per-example statistics the step reads, or None
    statistics_stride = 1  # every how many examples of a batch are measured
    fisher = "empirical"  # whose labels the statistics have: the data's, or the "model"'s
    seed = None  # of the random numbers of a step
    finds_nothing_to_measure = False  # the model is tracked, and no layer has a rule

    def attach(self, model):
        """Shows an optimizer that reads the model by itself the model it will train."""

    def parameters_changed(self, has_new):
        """Called when it was built again for other parameters, some of them perhaps `has_new`;
        state of those that are still there was kept."""

    def step(self, parameters, gradients, learning_rate):
        raise NotImplementedError

    def accept(self, results):
        """What is written of the pairs that `step` has yielded."""
        return results

    def read_statistics(self):
        """The values of `statistic_variables`, of this step's minibatch."""
        return [ops.convert_to_tensor(v) for v in self.statistic_variables]

    @property
    def statistic_variables(self):
        return own_statistics(self._trainable_variables)

    @property
    def sampled_variables(self):
        return [v for v in self._trainable_variables if not is_statistic(v)]

    def index(self, variable):
        """Place of a trainable variable in the list that `build` received, None for others."""
        return self._trainable_variables_indices.get(self._var_key(variable))

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        with _no_torch_gradients():
            results = list(self.step(trainable_variables, grads, learning_rate))
            _assign_all(self, self.accept(results))

    def _overwrite_variables_directly_with_gradients(self, grads, vars):
        """Sums gradients and statistics over replicas, in one collective outside of the
        conditional that gradient accumulation makes, and sets the statistics. They are averages
        over the examples of one backward pass, so they average over replicas and accumulation
        steps, where Keras would keep one replica's and the largest. They scale with the square
        of the gradient and are freed of the loss scale."""
        grads = _sum_over_replicas(self, [_dense(g) for g in grads], vars)
        measured = [(g, v) for g, v in zip(grads, vars, strict=True) if is_statistic(v)]
        scale = _loss_scale(self, measured)
        with _no_torch_gradients():
            for value, variable in measured:
                if variable.statistic.kind == "shift":
                    value = ops.stack([variable[1], value[1]])
                elif not variable.statistic.is_intensive:
                    power = scale**2 if variable.statistic.is_of_gradients else 1.0
                    value = _divided(value, power * num_loss_shares())
                variable.assign(self._accumulated_statistic(variable, value))
        rest = [(g, v) for g, v in zip(grads, vars, strict=True) if not is_statistic(v)]
        return super()._overwrite_variables_directly_with_gradients(
            [g for g, _ in rest], [v for _, v in rest]
        )

    def _accumulated_statistic(self, variable, value):
        steps = self.gradient_accumulation_steps
        if not steps:
            return value
        micro_step, before = self._iterations % steps, ops.convert_to_tensor(variable)
        if variable.statistic.is_intensive:  # must stay as it is while a sum builds on it
            return ops.where(micro_step == steps - 1, value, before)
        share = value if variable.statistic.is_a_sum else value / steps
        return ops.where(micro_step > 0, before, 0.0) + share

    def load_own_variables(self, store):
        """Keras warns and skips when the number of variables differs: for a sampler that
        would be a silently lost chain. The state of a metric whose model is not tracked yet
        (a file is loaded before anything can be tracked) waits until it is."""
        stored = [tuple(store[str(i)].shape) for i in range(len(store.keys()))]
        expected = [tuple(v.shape) for v in self.variables]
        if stored != expected:
            if self.statistics is not None and not self.statistic_variables:
                self._waiting_state = {key: np.array(store[key]) for key in list(store.keys())}
                return
            raise ValueError(
                f"The saved state of this {self.__class__.__name__} does not fit: expected "
                f"{len(expected)} variables of shapes {_listed(expected)}. Received: "
                f"{len(stored)} variables of shapes {_listed(stored)}. "
                "Load it into an optimizer with the same arguments on the same model; an "
                "optimizer that needs statistics must be tracked first "
                "(`kl.track_statistics(model, optimizer)`)."
            )
        super().load_own_variables(store)


def _listed(shapes):
    return ", ".join(map(str, shapes[:8])) + (" ..." if len(shapes) > 8 else "")


def inner_optimizer(optimizer):
    """The optimizer itself, without the wrapper that float16 training puts around it."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def loss_scale(optimizer):
    """What float16 training multiplies the loss by at present; 1 in other training."""
    scale = getattr(optimizer, "dynamic_scale", None)
    return 1.0 if scale is None else float(ops.convert_to_numpy(scale))


def learning_rate_schedule(optimizer):
    """The schedule of its learning rate, None where that is a number."""
    schedule = optimizer._learning_rate
    is_schedule = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    return schedule if is_schedule else None


def schedule_step(optimizer):
    """What that schedule is called with in the step at hand. It counts backward passes, also
    where several are accumulated into one of the optimizer's `iterations`."""
    return optimizer._iterations


def rebuild_optimizer(optimizer, variables):
    """Builds a built optimizer again for another list of variables, keeping the state it had for
    the variables it already knew. One for a model that shares no parameter with the last begins
    anew, but for its count of iterations."""
    wrapper, optimizer = optimizer, inner_optimizer(optimizer)
    if not optimizer.built or _ids(optimizer._trainable_variables) == _ids(variables):
        return
    if wrapper is not optimizer:  # it pairs gradients with a list of its own
        keras.optimizers.Optimizer.build(wrapper, variables)
    before, after = (
        {id(v) for v in some if not is_statistic(v)}
        for some in (optimizer._trainable_variables, variables)
    )
    kept = _values_by_name(optimizer, are_same=before == after) if before & after else {}
    fixed = [optimizer._iterations]
    if isinstance(optimizer._learning_rate, keras.Variable):
        fixed.append(optimizer._learning_rate)
    for variable in list(optimizer._variables):
        if not any(variable is f for f in fixed):
            optimizer._tracker.untrack(variable)
    optimizer._trainable_variables_indices = {}
    optimizer.built = False
    with keras.name_scope(optimizer.name):
        optimizer.build(variables)
    optimizer.built = True
    for name, variable in _named_state(optimizer):
        if name in kept and tuple(kept[name].shape) == tuple(variable.shape):
            variable.assign(kept[name])
    if before != after and isinstance(optimizer, JointOptimizer):
        optimizer.parameters_changed(has_new=bool(after - before))
    waiting = getattr(optimizer, "_waiting_state", None)
    if waiting is not None:
        optimizer._waiting_state = None
        optimizer.load_own_variables(waiting)


def _ids(variables):
    return [id(v) for v in variables]


def _named_state(optimizer):
    counts = {}
    for variable in optimizer.variables:
        count = counts[variable.name] = counts.get(variable.name, -1) + 1
        yield (variable.name, count), variable


def _values_by_name(optimizer, are_same):
    """Values of the state. Where parameters have come or gone, names that several share do not say
    whose the state is."""
    named = list(_named_state(optimizer))
    shared = set() if are_same else {name for (name, count), _ in named if count}
    return {key: ops.convert_to_numpy(v) for key, v in named if key[0] not in shared}


def _loss_scale(optimizer, measured):
    for gradient, variable in measured:
        if variable.statistic.kind == "loss_scale":
            return gradient
    return optimizer.loss_scale_factor or 1.0


def _divided(value, divisor):
    is_one = isinstance(divisor, int | float) and divisor == 1
    return value if is_one else value / ops.cast(divisor, value.dtype)


def _dense(gradient):
    """An Embedding's gradient on TensorFlow holds only the rows of the batch; noise and
    prior move every row."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)
    return gradient


def _sum_over_replicas(optimizer, gradients, variables):
    if num_loss_shares() == 1:
        return gradients
    adds_up = [not (is_statistic(v) and v.statistic.is_intensive) for v in variables]
    pairs = zip(gradients, variables, adds_up, strict=True)
    sums = optimizer._all_reduce_sum_gradients([(g, v) for g, v, adds in pairs if adds])
    sums = iter(sums)
    return [next(sums)[0] if adds else g for g, adds in zip(gradients, adds_up, strict=True)]


def _assign_all(optimizer, results):
    """Replicas compute the same step from the same sums, but TensorFlow's graph optimizer may
    rewrite one's arithmetic and not another's. So where they meet, all take the first one's
    values, lest the copies of a chain drift apart by rounding."""
    if keras.backend.backend() != "tensorflow":
        for variable, value in results:
            variable.assign(value)
        return
    import tensorflow as tf

    def assign(strategy, variables, values):
        for variable, value in zip(variables, values, strict=True):
            first = strategy.experimental_local_results(value)[0]
            strategy.extended.update(
                variable, lambda v, new: v.assign(new), args=(first,), group=False
            )

    variables = [v.value if isinstance(v, keras.Variable) else v for v, _ in results]
    values = [tf.cast(value, v.dtype) for (v, value) in results]
    tf.__internal__.distribute.interim.maybe_merge_call(
        assign, optimizer._distribution_strategy, variables, values
    )


def _no_torch_gradients():
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()
    return contextlib.nullcontext()
