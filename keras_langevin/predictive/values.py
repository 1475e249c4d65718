"""Numbers that are no distribution of y: only how far the members differ is known of them."""

import numpy as np
from keras import ops

from keras_langevin.predictive.family import Family
from keras_langevin.predictive.quantiles import member_quantiles
from keras_langevin.predictive.registry import register_family
from keras_langevin.predictive.row import Row


@register_family()
class Values(Family):
    """What a loss that is no likelihood was minimised over: predicted quantiles, embeddings,
    scores of a ranking, hazards.

    The prediction is the mean of the members, its uncertainty their spread. There is no density:
    what needs one says so.
    """

    output = "values"
    meaning = "numbers that are no distribution of y: their mean and spread, no likelihood"
    has_likelihood = False

    def parameters(self, outputs):
        return outputs

    def mean(self, parameters):
        return parameters

    def variance(self, parameters):
        """0: nothing is said of noise."""
        return ops.zeros_like(parameters)

    def uncertainty(self, outputs, quantiles):
        average = ops.mean(outputs, axis=0)
        epistemic = ops.mean(ops.square(outputs - average), axis=0)
        result = {"mean": average, "epistemic": epistemic, "stddev": ops.sqrt(epistemic)}
        if quantiles:
            result["quantiles"] = self.quantiles(outputs, quantiles)
        return result

    def quantiles(self, outputs, levels):
        """Of the members, since those of y are not known."""
        return member_quantiles(outputs, levels)

    def log_likelihood(self, outputs, y):
        raise _no_likelihood("log p(y | x)")

    def log_densities(self, outputs, y):
        raise _no_likelihood("log p(y | x)")

    def fisher_scores(self, outputs, draws):
        raise _no_likelihood("the Fisher information")

    def sample(self, parameters, generator):
        raise _no_likelihood("draws of y")

    def distribution(self, parameters, tfp):
        raise _no_likelihood("the predictive distribution")

    @property
    def can_sample(self):
        return False

    def report(self, parameters, y, outside=None, weights=None):
        """How far the members are apart; `y` says nothing about numbers of unknown meaning."""
        of_members = parameters.astype("float64").std(axis=0)
        of_values = float(parameters.astype("float64").mean(axis=0).std())
        spread = float(np.sqrt(np.mean(of_members**2)))
        rows = [
            Row(
                "spread_of_members",
                spread,
                "spread of the members",
                "Standard deviation of the members about their mean, in the units of the output.",
            ),
            Row(
                "spread_of_predictions",
                of_values,
                "spread of the predictions",
                "Standard deviation of the mean prediction over the data, to compare it with.",
            ),
        ]
        if outside is not None:
            rows.append(
                Row(
                    "spread_of_members_outside",
                    float(np.sqrt(np.mean(outside.astype("float64").var(axis=0)))),
                    "spread of the members on strange inputs",
                    "Higher than on ordinary inputs, if the members notice them.",
                )
            )
        return rows, []


def _no_likelihood(what):
    return ValueError(
        'With output="values" the outputs are no distribution of y, so that there is no '
        f"likelihood. Received: a call that needs {what}. Use `predict`, `predict_members` or "
        "`predict_uncertainty`, or name a likelihood by `output=`."
    )
