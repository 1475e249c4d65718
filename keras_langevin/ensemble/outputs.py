"""What each output of a model means, and structures with one entry for each of them."""

from keras import ops, tree

from keras_langevin.ensemble.loss import mean_loss, score
from keras_langevin.keras_internals import compile_argument
from keras_langevin.predictive.output import one_per_output


class Outputs:
    """The likelihood family of every output of a model.

    A plain object, so that Keras neither tracks nor saves what it holds.

    Args:
        families: In the structure of the model's outputs.
        names: Of the outputs, in the order of `keras.tree.flatten`, or None.
        losses: What the model was compiled with, in the same order; None where there is none.
        loss_weights: The factors of the outputs' losses, in the same order.

    Attributes:
        families, losses, loss_weights: Lists, one entry for each output.
        names: In the same order.
    """

    def __init__(self, families, names=None, losses=None, loss_weights=None):
        self._structure = families
        self.families = tree.flatten(families)
        if isinstance(families, dict):
            names = sorted(families)
        self.names = names or [f"output_{i}" for i in range(len(self.families))]
        self.losses = losses or [None] * len(self.families)
        self.loss_weights = [1.0 if w is None else w for w in loss_weights or self.losses]

    def __iter__(self):
        return iter(self.families)

    def structured(self, function):
        """`function(family)` of each output, in their structure."""
        return tree.map_structure(function, self._structure)

    def packed(self, flat):
        """A list with one item for each output, which may be nested, in their structure."""
        items = iter(flat)
        return tree.map_structure(lambda _: next(items), self._structure)

    def flat(self, structure):
        """What `packed` was made of."""
        found = []
        tree.map_structure_up_to(self._structure, found.append, structure)
        return found

    def by_output(self, value):
        """Labels or weights, as Keras takes them, as a list with one for each output."""
        if not tree.is_nested(value):
            return [value] * len(self.families)
        if isinstance(value, dict):
            return [value.get(name) for name in self.names]
        return list(value) if len(value) == len(self.families) else tree.flatten(value)

    def each(self, function, outputs, *more):
        """A list of `function(family, output, ...)`; `more` are lists.

        Raises:
            ValueError: If the outputs have another structure than the families.
        """
        try:
            tree.assert_same_structure(self._structure, outputs)
        except ValueError:
            raise ValueError(
                "`output` must have the structure of the model's outputs, "
                f"{tree.map_structure(lambda _: '...', outputs)}. Received: output="
                f"{self.structured(lambda f: f.output)} when the ensemble was made."
            ) from None
        flat = zip(self.families, tree.flatten(outputs), *more, strict=True)
        return [function(*one) for one in flat]

    def sums(self, outputs):
        """The members' means added up, in a list."""
        return self.each(lambda family, o: ops.sum(family.means(o), axis=0), outputs)

    def scores(self, outputs, y):
        """A `score` for each output of the members, in a list."""
        return self.each(score, outputs, self.by_output(y))

    def mean_loss(self, scores, y, sample_weight):
        """The loss of a batch: those of the outputs, added up by their weights. An output that no
        loss was compiled for adds nothing beside others."""
        given = (self.by_output(y), self.by_output(sample_weight), self.losses, self.names)
        parts = list(zip(self.families, scores, *given, self.loss_weights, strict=True))
        scored = [part for part in parts if part[0].has_likelihood or part[4] is not None]
        return sum(
            # The noise whose scale the loss sets is that of the weighted one.
            (1.0 if part[0].loss_sets_scale else weight) * mean_loss(*part)
            for *part, weight in scored or parts
        )

    def average(self, scores):
        """The posterior predictive mean of scored outputs, in their structure."""
        return self.packed([score["mean"] for score in scores])

    def check(self, predictions):
        """ValueError where one of a list of predictions, NumPy, cannot be what it should."""
        for family, one in zip(self.families, predictions, strict=True):
            family.check(one)


def outputs_of(model, families):
    """`Outputs` of a model, with what it was compiled with."""
    names = list(model.output_names) if hasattr(model, "output_names") else None
    losses, weights = (
        one_per_output(model, name, compile_argument(model, name))
        for name in ("loss", "loss_weights")
    )
    count = len(tree.flatten(families))
    known = [one if len(one) == count else None for one in (losses, weights)]
    return Outputs(families, names, *known)
