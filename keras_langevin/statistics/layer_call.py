"""One call of a layer, kept so that it can be run again for one example at a time."""

import contextlib
import contextvars

import keras
from keras import ops

from keras_langevin import keras_internals

_is_running_again = contextvars.ContextVar("is_running_again", default=False)


def is_running_again() -> bool:
    """Whether a layer runs a second time, to be measured: probes within it must keep still."""
    return _is_running_again.get()


class LayerCall:
    """A layer's call and what it was given.

    Tensors with as many rows as the first one, and the masks that hang on them, have one row for
    each example. Everything else is the same for all.

    Args:
        layer: The layer.
        plain: Its `call`, without a probe.
        args, kwargs: What it was called with.
        in_inference: Run it again with `training=False`, whatever it was called with.
    """

    def __init__(self, layer, plain, args, kwargs, in_inference=False):
        self.layer, self.plain = layer, plain
        if in_inference and "training" in kwargs:
            kwargs = {**kwargs, "training": False}
        self.structure = (args, kwargs)
        self.leaves = [
            ops.stop_gradient(leaf) if ops.is_tensor(leaf) else leaf
            for leaf in keras.tree.flatten(self.structure)
        ]
        masks = [
            keras_internals.mask_of(leaf) if ops.is_tensor(leaf) else None
            for leaf in keras.tree.flatten(self.structure)
        ]
        self.places = self._places_of_examples()
        self.masked = [i for i in self.places if masks[i] is not None]
        self.examples = [self.leaves[i] for i in self.places] + [masks[i] for i in self.masked]

    def _places_of_examples(self):
        tensors = [(i, x) for i, x in enumerate(self.leaves) if ops.is_tensor(x) and len(x.shape)]
        if not tensors:
            return []
        rows = tensors[0][1].shape[0]
        return [i for i, x in tensors if x.shape[0] == rows or x.shape[0] is None]

    def run(self, values, examples):
        """The float outputs in one array, with a row for each of the examples.

        Args:
            values: Pairs of a variable of the layer and its value.
            examples: In place of `self.examples`, those or others.
        """
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, examples, strict=False):
            leaves[place] = tensor
        for place, mask in zip(self.masked, examples[len(self.places) :], strict=True):
            keras_internals.set_mask(leaves[place], mask)
        args, kwargs = keras.tree.pack_sequence_as(self.structure, leaves)
        scope = keras.StatelessScope(state_mapping=values)
        with scope, keras_internals.autocast_scope(self.layer), _running_again(self.layer):
            return packed(float_leaves(self.plain(*args, **kwargs)))


def float_leaves(outputs):
    """The tensors among nested outputs that have derivatives."""
    return [x for x in keras.tree.flatten(outputs) if is_float_tensor(x)]


def is_float_tensor(x):
    return ops.is_tensor(x) and keras.backend.is_float_dtype(x.dtype)


def packed(tensors):
    """One array with the tensors' examples as rows; a single tensor is that array itself."""
    if len(tensors) == 1:
        return tensors[0]
    return ops.concatenate([ops.reshape(x, (ops.shape(x)[0], -1)) for x in tensors], axis=1)


def unpacked(array, tensors):
    """Undoes `packed`: arrays shaped as the tensors and of their dtypes."""
    if len(tensors) == 1:
        return [array]
    parts, start = [], 0
    for tensor in tensors:
        shape, size = ops.shape(tensor), 1
        for n in shape[1:]:
            size = size * n
        part = ops.reshape(array[:, start : start + size], shape)
        parts.append(ops.cast(part, tensor.dtype))
        start = start + size
    return parts


@contextlib.contextmanager
def _running_again(layer):
    """Inside, probes keep still, and layers take the way that can be vectorized over examples."""
    fused = [x for x in keras_internals.flatten_layers(layer) if hasattr(x, "use_cudnn")]
    before = [x.use_cudnn for x in fused]
    token = _is_running_again.set(True)
    for x in fused:
        x.use_cudnn = False
    try:
        yield
    finally:
        for x, value in zip(fused, before, strict=True):
            x.use_cudnn = value
        _is_running_again.reset(token)
