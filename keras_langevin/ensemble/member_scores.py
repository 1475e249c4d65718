"""What one sample after another says of the same data, by one compiled program."""

from keras_langevin.ensemble.model import BayesianEnsembleModel
from keras_langevin.storage.stack_samples import stack_samples


class MemberScores:
    """An ensemble of one member, which becomes one sample after another.

    Args:
        model: As for `BayesianEnsembleModel`.

    Attributes:
        member: The `BayesianEnsembleModel`, from the first `become` on.
    """

    def __init__(self, model):
        self._model = model
        self.member = None

    def become(self, weights):
        """Takes a mapping from weight name to array."""
        if self.member is None:
            self.member = BayesianEnsembleModel(self._model, [weights])
        else:
            _, stacks = stack_samples(self._model, [weights])
            self.member.set_weights(list(stacks))

    def scores(self, x, y):
        """A `score`, NumPy, for each output."""
        view = self.member.view("running", self.member.scores)
        return view.predict_on_batch({"x": x, "y": y})
