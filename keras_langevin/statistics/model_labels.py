"""Statistics under labels drawn from the model: those of the true Fisher information.

`compute_loss`, which every backend calls inside its training step, runs the network a second
time, with every parameter held and the probes measuring, and adds a number to the loss whose
derivative by the outputs is the score of drawn labels (`predictive/fisher_scores.py`), while its
value does not count. The backward pass of the step then brings the probes the δ of drawn labels.
The pass to the data's labels has the probes silent, so the gradients of the parameters are what
they were.

The second pass is one of training: dropout is on, its masks drawn apart from the first pass's, so
that what is measured is the Fisher information of the network as it is trained. What the pass
does to layers' states (moving averages, random seeds) is forgotten.
"""

import contextlib

import keras
from keras import ops

from keras_langevin import keras_internals
from keras_langevin.distribution import num_loss_shares, num_replicas, replica_index
from keras_langevin.noise import random_signs
from keras_langevin.predictive.fisher_scores import scores
from keras_langevin.predictive.output import one_per_output, resolve_families
from keras_langevin.random_numbers import is_random_state, other_global_numbers, other_random_state
from keras_langevin.statistics.block import LABEL_DRAW, Statistic
from keras_langevin.weights import is_statistic

_DRAWS = 2.0**24  # float32 counts up to here; then it begins again


def families_of(model):
    """The likelihood families that labels are drawn from, or ValueError."""
    try:
        return resolve_families(model)
    except ValueError as error:
        raise ValueError(
            'fisher="model" draws labels from the model, whose likelihood the compiled loss must '
            'say. Use one of the losses it is known for, or fisher="empirical", which takes any '
            f"loss. Received: model '{model.name}'. {error}"
        ) from error


class ModelLabels:
    """Has the probes of a tracked model measure under labels that the model draws.

    Args:
        model: The model.
        probes: Its installed probes.
        seed: Of the draws, which are a pure function of it and the value of `variable`.
        is_hidden: A function without arguments: whether the model is its own for the moment.

    Attributes:
        variable: Counts the draws. It is set to its next value by its "gradient", like the
            statistics: nothing else that changes can be read inside a compiled loss on JAX.
    """

    def __init__(self, model, probes, seed, is_hidden):
        self.model, self.probes = model, probes
        self.seed, self.is_hidden = seed, is_hidden
        self.variable = keras.Variable(
            "zeros", shape=(), dtype="float32", autocast=False, aggregation="mean", name=LABEL_DRAW
        )
        self.variable.overwrite_with_gradient = True
        self.variable.statistic = Statistic(LABEL_DRAW, None)

    def install(self):
        for probe in self.probes:
            probe.is_measuring = False
        self.plain = self.model.compute_loss
        self.model.__dict__["compute_loss"] = self.compute_loss

    def compute_loss(self, *args, **kwargs):
        """Stands as `model.compute_loss`."""
        loss = self.plain(*args, **kwargs)
        names = ("x", "y", "y_pred", "sample_weight", "training")
        said = dict(zip(names, args, strict=False)) | kwargs
        if self.is_hidden() or not said.get("training", True):
            return loss
        keras.tree.map_structure(_refuse_mask, said["y_pred"])
        draw = ops.convert_to_tensor(self.variable)
        outputs = self._second_pass(said["x"])
        product = self._scores_times(outputs, said.get("sample_weight"), draw)
        return _with_derivative_of(loss, product, draw)

    def _second_pass(self, x):
        # Every variable is named: this scope hides the values of the one around it.
        mapping = [(v, self._held(v)) for v in self.model.variables]
        scope = keras.StatelessScope(state_mapping=mapping)
        with self._measuring(), scope, other_global_numbers():
            outputs = keras_internals.call_in_training(self.model, x)
        return keras.tree.map_structure(lambda o: ops.cast(o, "float32"), outputs)

    def _held(self, variable):
        value = ops.convert_to_tensor(variable)
        if is_statistic(variable):
            return value
        if is_random_state(variable):
            return other_random_state(value)
        return ops.stop_gradient(value)

    @contextlib.contextmanager
    def _measuring(self):
        for probe in self.probes:
            probe.is_measuring = True
        try:
            yield
        finally:
            for probe in self.probes:
                probe.is_measuring = False

    def _scores_times(self, outputs, sample_weight, draw):
        """Mean over the batch of ⟨score, output⟩, the score held, summed over the outputs."""
        held = keras.tree.map_structure(ops.stop_gradient, outputs)
        flat = keras.tree.flatten(held)
        draw, share = ops.stop_gradient(draw), (replica_index(), num_replicas())
        draws = [random_signs(ops.shape(o), self.seed, draw, i, *share) for i, o in enumerate(flat)]
        drawn = scores(families_of(self.model), held, keras.tree.pack_sequence_as(held, draws))
        roots = [ops.sqrt(w) for w in self._weights(flat, sample_weight)]
        parts = zip(roots, keras.tree.flatten(drawn), keras.tree.flatten(outputs), strict=True)
        total = sum(ops.sum(ops.stop_gradient(root * score) * o) for root, score, o in parts)
        examples = ops.shape(flat[0])[0] * num_loss_shares()
        return total / ops.cast(examples, "float32")

    def _weights(self, outputs, sample_weight):
        """What multiplies the examples' log-likelihoods, for each output."""

        def spread(name, value):
            return one_per_output(self.model, name, value)

        losses = spread("loss", keras_internals.compile_argument(self.model, "loss"))
        of_losses = spread(
            "loss_weights", keras_internals.compile_argument(self.model, "loss_weights")
        )
        of_examples = spread("sample_weight", sample_weight)
        for output, loss, of_loss, weight in zip(
            outputs, losses, of_losses, of_examples, strict=True
        ):
            of_loss = ops.cast(1.0 if of_loss is None else of_loss, "float32")
            if weight is None:
                yield of_loss
                continue
            weight = _one_per_example(weight, output)
            if getattr(loss, "reduction", None) == "mean_with_sample_weight":
                weight = ops.divide_no_nan(weight, ops.mean(weight))
            yield of_loss * weight


@ops.custom_gradient
def _with_derivative_of(loss, product, draw):
    """The loss, with the derivatives of loss + product; `draw` moves on by one."""

    def backward(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        next_draw = ops.mod(draw + 1.0, _DRAWS)
        return upstream, ops.cast(upstream, "float32"), next_draw

    return loss, backward


def _one_per_example(weight, output):
    shape = tuple(weight.shape)
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        raise ValueError(
            'With fisher="model" `sample_weight` must have one number for each example, the shape '
            f"(batch,) or (batch, 1). Received: sample_weight.shape={shape}. Use "
            'fisher="empirical" for weights of tokens or pixels.'
        )
    weight = ops.cast(ops.stop_gradient(weight), "float32")
    return ops.reshape(weight, (-1, *[1] * (len(output.shape) - 1)))


def _refuse_mask(output):
    if keras_internals.mask_of(output) is not None:
        raise ValueError(
            'With fisher="model" the outputs must have no mask. Received: outputs of shape '
            f'{tuple(output.shape)} with one. Use fisher="empirical", or a layer without '
            "`mask_zero`."
        )
