"""What each output of a model means, and structures with one entry for each of them."""

from keras import ops, tree


class Outputs:
    """The likelihood family of every output of a model.

    A plain object, so that Keras neither tracks nor saves what it holds.

    Args:
        families: In the structure of the model's outputs.
        names: Of the outputs, in the order of `keras.tree.flatten`, or None.

    Attributes:
        families: A list, one for each output.
        names: In the same order.
    """

    def __init__(self, families, names=None):
        self._structure = families
        self.families = tree.flatten(families)
        if isinstance(families, dict):
            names = sorted(families)
        self.names = names or [f"output_{i}" for i in range(len(self.families))]

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
        if isinstance(value, dict) and not isinstance(self._structure, dict):
            return [value[name] for name in self.names]
        return tree.flatten(value)

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

    def average(self, outputs):
        """From what the members returned to the posterior predictive mean."""
        return self.packed(self.each(lambda family, o: ops.mean(family.means(o), axis=0), outputs))

    def check(self, predictions):
        """ValueError where one of a list of predictions, NumPy, cannot be what it should."""
        for family, one in zip(self.families, predictions, strict=True):
            family.check(one)
