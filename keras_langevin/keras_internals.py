"""Every private name of Keras that this package touches, and nothing else.

A new Keras release that moves something breaks this file alone.
"""

import contextlib
import functools
import inspect
import itertools
import random

import keras
import numpy as np
from keras import ops
from keras.src.backend import get_keras_mask
from keras.src.trainers.epoch_iterator import EpochIterator

from keras_langevin import keras_arguments
from keras_langevin.weights import is_statistic

# ---------------------------------------------------------------------------- optimizers


class JointOptimizer(keras.optimizers.Optimizer):
    """An optimizer whose step sees all variables at once and states its results as values.

    A subclass implements `step(parameters, gradients, learning_rate)`, which reads whatever
    it likes and yields `(variable, new value)` pairs for parameters and for its own state.
    All reads happen before the first write. Gradients arrive dense, summed over replicas,
    unscaled and averaged over accumulation steps. The statistics of tracked layers arrive on the
    same footing, by `read_statistics`.
    """

    statistics = None  # which of `statistics.block.KINDS` the step reads, or None

    def step(self, parameters, gradients, learning_rate):
        raise NotImplementedError

    def settle(self, results):
        """What is written of the pairs that `step` has yielded."""
        return results

    def read_statistics(self):
        """The values of `statistic_variables`, of this step's minibatch."""
        return [ops.convert_to_tensor(v) for v in self.statistic_variables]

    @property
    def statistic_variables(self):
        return [v for v in self._trainable_variables if is_statistic(v)]

    @property
    def sampled_variables(self):
        return [v for v in self._trainable_variables if not is_statistic(v)]

    def position(self, variable):
        """Place of a trainable variable in the list that `build` received, None for others."""
        return self._trainable_variables_indices.get(self._var_key(variable))

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        with _no_torch_gradients():
            results = list(self.step(trainable_variables, grads, learning_rate))
            _assign_all(self, self.settle(results))

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
                    value = _divided(value, power * num_replicas())
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
        return ops.where(micro_step > 0, before, 0.0) + value / steps

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


def sampling_optimizer(model):
    optimizer = inner_optimizer(getattr(keras_arguments.model("model", model), "optimizer", None))
    if not model.built or not hasattr(optimizer, "preconditioner"):
        raise ValueError(
            "The model must be built, and compiled with an optimizer of keras_langevin. Received: "
            f"model '{model.name}', {'built' if model.built else 'not built'}, "
            f"optimizer={type(optimizer).__name__}. Begin the model with `keras.Input(...)` and "
            "call `model.compile(optimizer=kl.QDOPLangevin(...), loss=...)` first."
        )
    return optimizer


def rebuild_optimizer(optimizer, variables):
    """Builds a built optimizer again for another list of variables, keeping the state it
    had for the variables it already knew."""
    wrapper, optimizer = optimizer, inner_optimizer(optimizer)
    if not optimizer.built:
        return
    if wrapper is not optimizer:  # it pairs gradients with a list of its own
        keras.optimizers.Optimizer.build(wrapper, variables)
    kept = _values_by_name(optimizer)
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
    waiting = getattr(optimizer, "_waiting_state", None)
    if waiting is not None:
        optimizer._waiting_state = None
        optimizer.load_own_variables(waiting)


def _named_state(optimizer):
    counts = {}
    for variable in optimizer.variables:
        count = counts[variable.name] = counts.get(variable.name, -1) + 1
        yield (variable.name, count), variable


def _values_by_name(optimizer):
    return {name: ops.convert_to_numpy(v) for name, v in _named_state(optimizer)}


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
    if num_replicas() == 1:
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


def num_replicas() -> int:
    """Replicas whose examples make up one batch."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync
    return 1


def _no_torch_gradients():
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()
    return contextlib.nullcontext()


# -------------------------------------------------------------------------------- models


def compile_argument(model, name):
    """What `model.compile` was given under that name, None for a model not compiled."""
    if not getattr(model, "compiled", False):
        return None
    return model._compile_config.config.get(name)


def batches_of_fit(model, count):
    """Up to `count` batches `(x, y, sample_weight)` of what a running `fit` trains the model on,
    as it would meet them in another epoch; an empty list outside of `fit`.

    Keras shows callbacks no data; they stand in the frame of `fit`. A generator cannot be read
    twice: of one these are the batches that Keras keeps of its beginning. The order in which
    `fit` goes on to meet arrays is the same as without.
    """
    adapter = _adapter_of_fit(model)
    if adapter is None:
        return []
    kept = getattr(adapter, "_first_batches", None)
    states = random.getstate(), np.random.get_state()  # of which Keras takes permutations
    try:
        batches = list(itertools.islice(kept or adapter.get_numpy_iterator(), count))
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    return [keras.utils.unpack_x_y_sample_weight(batch) for batch in batches]


def batch_size_of_fit(model):
    """Examples in a batch of a running `fit`; None where the data do not say."""
    known = getattr(_adapter_of_fit(model), "batch_size", None)
    return known or getattr(dataset_of_fit(model), "batch_size", None)


def dataset_of_fit(model):
    """The `PyDataset` that a running `fit` trains the model on, None for other data."""
    return getattr(_adapter_of_fit(model), "py_dataset", None)


def _adapter_of_fit(model):
    frame = _frame_of_fit(model)
    return None if frame is None else frame.f_locals["epoch_iterator"].data_adapter


def _frame_of_fit(model):
    frame = inspect.currentframe()
    while frame is not None:
        adapter = getattr(frame.f_locals.get("epoch_iterator"), "data_adapter", None)
        if adapter is not None and frame.f_locals.get("self") is model:
            return frame
        frame = frame.f_back
    return None


def validation_batches_of_fit(model):
    """The batches `(x, y, sample_weight)` that a running `fit` validates on, from the first, as an
    iterator; None where it has not validated yet."""
    iterator = getattr(model, "_eval_epoch_iterator", None)
    return None if iterator is None else _batches(iterator.data_adapter)


def has_validation_data(model):
    """Whether a running `fit` has data to validate on, be it in another epoch."""
    frame = _frame_of_fit(model)
    return frame is not None and frame.f_locals.get("validation_data") is not None


def data_batches(data, batch_size=None):
    """The batches `(x, y, sample_weight)`, NumPy, of a tuple of arrays or of a dataset."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    iterator = EpochIterator(
        x=x, y=y, sample_weight=sample_weight, batch_size=batch_size, shuffle=False
    )
    return _batches(iterator.data_adapter)


def data_in_memory(data):
    """`(x, y, sample_weight)` of a whole dataset in NumPy arrays."""
    parts = zip(*data_batches(data), strict=True)
    return tuple(None if part[0] is None else _concatenated(part) for part in parts)


def _batches(adapter):
    return map(keras.utils.unpack_x_y_sample_weight, adapter.get_numpy_iterator())


def _concatenated(batches):
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *batches)


def flatten_layers(model):
    return model._flatten_layers()


def own_trainable_variables(layer):
    """What a layer holds itself, not through its sublayers, and would be trained."""
    return [v for v in layer._trainable_variables if v.trainable and not is_statistic(v)]


def call_in_training(model, x):
    """The model's outputs as its training step calls it."""
    return model(x, training=True) if model._call_has_training_arg else model(x)


def mask_of(output):
    """The mask that layers have hung on an output, None where there is none."""
    return get_keras_mask(output)


def is_random_state(variable):
    """Whether a `keras.random.SeedGenerator` holds it."""
    return variable.name == "seed_generator_state"


def other_random_state(state):
    """A state of a `keras.random.SeedGenerator`, (seed, counter), that draws other numbers."""
    return state + ops.convert_to_tensor(np.array([0x2545F491, 0]), dtype=state.dtype)


@contextlib.contextmanager
def other_global_numbers():
    """Inside, torch's own generator, which its dropout without a seed uses, draws other numbers
    than it would outside; afterwards it goes on where it was."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    device = ops.zeros(()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, ())))
        yield


def has_replaced_weights(layer):
    """LoRA and quantization put other variables in the place of the kernel."""
    mode = getattr(layer, "quantization_mode", None)
    return mode is not None or bool(getattr(layer, "lora_enabled", False))


def add_weights(model, variables):
    """Makes variables the model's own, also after it was built."""
    was_locked = model._tracker.locked
    model._tracker.unlock()
    for variable in variables:
        model._track_variable(variable)
    if was_locked:
        model._tracker.lock()
    forget_compiled_functions(model)


def remove_weights(model, variables):
    for variable in variables:
        model._untrack_variable(variable)
    forget_compiled_functions(model)


def forget_compiled_functions(model):
    """A function compiled by an earlier `fit` knows the old list of variables."""
    for name in ("train_function", "test_function", "predict_function"):
        if hasattr(model, name):
            setattr(model, name, None)


@contextlib.contextmanager
def without_weights(model, hidden):
    """Inside, the model's own weights do not contain the hidden ones."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # while the list still matches the state of a running `fit`
    own = model._trainable_variables
    before = list(own)
    own[:] = [v for v in own if not any(v is h for h in hidden)]
    try:
        yield
    finally:
        own[:] = before


# What shows or stores a model's weights. Each runs as if the model were not tracked.
_PRESENTING = (
    "save",
    "save_weights",
    "load_weights",
    "save_own_variables",
    "load_own_variables",
    "get_weights",
    "set_weights",
    "count_params",
    "summary",
    "export",
)


def present_without(model, hiding):
    """Shadows the methods that show or store weights; `hiding` makes the context they run in."""

    def shadow(method):
        @functools.wraps(method)
        def presented(*args, **kwargs):
            with hiding():
                return method(*args, **kwargs)

        return presented

    for name in _PRESENTING:
        if hasattr(model, name):
            setattr(model, name, shadow(getattr(model, name)))


def present_all(model):
    """Undoes `present_without`."""
    for name in _PRESENTING:
        model.__dict__.pop(name, None)


# ----------------------------------------------------------------------------- gradients


def kernel_vjp(op, kernel_shape, cotangent):
    """Gradient of sum(op(kernel) * cotangent) for an `op` linear in its kernel, float32."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        _, pullback = jax.vjp(op, jax.numpy.zeros(kernel_shape, "float32"))
        return pullback(cotangent)[0]
    if backend == "torch":
        import torch

        kernel = torch.zeros(kernel_shape, device=cotangent.device)
        with torch.enable_grad():
            _, pullback = torch.func.vjp(op, kernel)
            return pullback(cotangent)[0]
    import tensorflow as tf

    kernel = tf.zeros(kernel_shape)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        outputs = op(kernel)
    gradient = tape.gradient(outputs, kernel, output_gradients=cotangent)
    return tf.convert_to_tensor(gradient)  # a look-up's holds the rows that were met
