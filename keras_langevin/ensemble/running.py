"""The average of more and more members on data that come again in the same batches."""

import numpy as np
from keras import ops, tree

from keras_langevin.ensemble.member_scores import MemberScores
from keras_langevin.keras_internals import set_mask


class RunningEnsemble:
    """The posterior predictive of the samples added so far, each of them evaluated once.

    Args:
        model: As for `BayesianEnsembleModel`.
    """

    def __init__(self, model):
        self._scores = MemberScores(model)
        self.forget()

    def forget(self):
        """Begins with no members again."""
        self.num_members = 0
        self._labels, self._averages = [], []

    def add(self, weights, batches):
        """Averages one sample in.

        Args:
            weights: Mapping from weight name to array.
            batches: Iterable of `(x, y, sample_weight)`, the same every time.
        """
        self._scores.become(weights)
        labels, averages = [], []
        for index, (x, y, sample_weight) in enumerate(batches):
            self._check_labels(index, y)
            labels.append((y, sample_weight))
            averages.append(self._averaged(index, self._scores.scores(x, y)))
        if not labels or (self._labels and len(self._labels) != len(labels)):
            raise ValueError(
                "Validation data must have the same batches every time. Received: "
                f"{len(labels)} batches, {len(self._labels)} before."
            )
        self._labels, self._averages = labels, averages
        self.num_members += 1

    def results(self):
        """`loss` and the metrics of the model, by name, as `BayesianEnsembleModel.evaluate`."""
        member = self._scores.member
        member.reset_metrics()
        metrics, loss, count = {}, 0.0, 0
        for (y, sample_weight), average in zip(self._labels, self._averages, strict=True):
            size = tree.flatten(y)[0].shape[0]
            scores = [_with_mask(score) for score in average]
            loss += size * float(member.heads.mean_loss(scores, y, sample_weight))
            count += size
            metrics = member.update_metrics(y, scores, sample_weight)
        metrics = {name: float(value) for name, value in metrics.items() if name != "loss"}
        return {"loss": loss / count, **metrics}

    def _averaged(self, index, new):
        """With the members before; log densities by a running log-mean-exp."""
        if not self.num_members:
            return new
        share = 1.0 / (self.num_members + 1)
        pairs = zip(self._averages[index], new, strict=True)
        return [{**after, **_averages(before, after, share)} for before, after in pairs]

    def _check_labels(self, index, y):
        if not self._labels:
            return
        before = self._labels[index][0] if index < len(self._labels) else None
        same = before is not None and all(
            np.array_equal(a, b) for a, b in zip(*map(tree.flatten, (before, y)), strict=True)
        )
        if not same:
            raise ValueError(
                "Validation data must give the same labels in the same order every time. Received: "
                f"other labels in batch {index} than before. Do not shuffle them."
            )


def _averages(before, after, share):
    """Of means, and of densities by their logarithms; masks stay those of the last member."""
    found = {"mean": before["mean"] + share * (after["mean"] - before["mean"])}
    if "log_density" in after:
        old, new = before["log_density"] + np.log1p(-share), after["log_density"] + np.log(share)
        found["log_density"] = np.logaddexp(old, new)
    return found


def _with_mask(score):
    """Tensors, the mean with its mask hung on it."""
    found = {name: ops.convert_to_tensor(array) for name, array in score.items()}
    if "mask" in found:
        set_mask(found["mean"], found["mask"])
    return found
