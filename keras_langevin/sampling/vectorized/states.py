"""The variables of several chains that share one model, on one device or spread over all."""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from keras_langevin.keras_internals import JointOptimizer, inner_optimizer, put_back_weights

ATTRIBUTES = ("seed", "gradient_noise", "has_learning_rate")  # of an optimizer, no variables


class ChainStates:
    """Of every variable of the model and its optimizer a stack, whose first axis is the chain.

    Args:
        model: The model, whose variables take the values of one chain at a time.
        values: For each chain a mapping from `id(variable)` to an array.
        attributes: For each chain those of its optimizer that are no variables.

    Attributes:
        variables: Those of the model and its optimizer.
        stacks: Three lists of arrays of shape `(chains, *variable.shape)`: of the trainable
            variables, of the others, and of the optimizer's.
    """

    def __init__(self, model, values, attributes):
        self.model, self.num_chains = model, len(values)
        self.attributes = [dict(one) for one in attributes]
        groups = model.trainable_variables, model.non_trainable_variables, model.optimizer.variables
        groups = tuple(list(group) for group in groups)
        self.variables = [v for group in groups for v in group]
        self._places = [(g, i) for g, group in enumerate(groups) for i in range(len(group))]
        self._devices = _devices(len(values))
        self.stacks = tuple(
            [jnp.stack([of_chain[id(v)] for of_chain in values]) for v in group] for group in groups
        )
        if self._devices:
            sharding = NamedSharding(Mesh(self._devices, ("chains",)), PartitionSpec("chains"))
            self.stacks = jax.device_put(self.stacks, sharding)

    @property
    def is_lost(self):
        """Whether a step has taken the arrays and ended before it gave others."""
        return any(stack.is_deleted() for group in self.stacks for stack in group)

    def values(self, chain):
        """The arrays of a chain, one for each of `variables`."""
        taken = [array for group in _taken(self.stacks, chain) for array in group]
        return jax.device_put(taken, self._devices[0]) if self._devices else taken

    @contextlib.contextmanager
    def of(self, chain, own=()):
        """Inside, the model is that of a chain; what becomes of it there is kept.

        Args:
            own: The variables of a model that the chain has to itself, which are so too.
        """
        put_back_weights(self.model)
        variables, values = self.variables, self.values(chain)
        if len(own) == len(variables):
            variables, values = [*variables, *own], [*values, *values]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        before = [v.value for v in variables]
        optimizer = inner_optimizer(self.model.optimizer)
        set_attributes(optimizer, self.attributes[chain])
        try:
            yield
        finally:
            self.attributes[chain] = attributes_of(optimizer)
            set_attributes(optimizer, self.attributes[0])  # which its step is traced with
            places = itertools.cycle(self._places)
            for (g, i), variable, old in zip(places, variables, before, strict=False):
                if variable.value is not old:
                    value = np.asarray(variable.value)  # which lies on no device
                    self.stacks[g][i] = _put(self.stacks[g][i], chain, value)


def _devices(num_chains):
    """Those over which the chains are spread, equally many on each; none where one has all."""
    devices = jax.local_devices()
    is_spread = len(devices) > 1 and num_chains % len(devices) == 0
    return devices if is_spread and keras.distribution.distribution() is None else []


def attributes_of(optimizer):
    """Those of an optimizer of this package; none of others."""
    optimizer = inner_optimizer(optimizer)
    if not isinstance(optimizer, JointOptimizer):
        return {}
    return {name: getattr(optimizer, name) for name in ATTRIBUTES if hasattr(optimizer, name)}


def set_attributes(optimizer, attributes):
    for name, value in attributes.items():
        setattr(inner_optimizer(optimizer), name, value)


@jax.jit
def _taken(stacks, chain):
    return jax.tree.map(lambda stack: stack[chain], stacks)


@jax.jit
def _put(stack, chain, value):
    return stack.at[chain].set(value)
