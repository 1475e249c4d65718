"""How good predictions are: scores, calibration, and knowing when not to know.

| classes | what it is | better | proper score |
|---|---|---|---|
| `negative_log_likelihood` | mean of -log p(label), nats | lower | yes |
| `brier_score` | squared error of the probabilities, 0 to 2 | lower | yes |
| `accuracy` | share of right predictions | higher | no |
| `expected_calibration_error` | distance of confidence and accuracy | lower | no |
| `reliability_curve` | accuracy by confidence | on the diagonal | |
| `area_under_risk_coverage` | error when unsure examples are left out | lower | no |
| `risk_coverage_curve` | that error by the share that is kept | lower | |
| `temperature_scaling` | repairs the sharpness of probabilities | | |

| real numbers | what it is | better | proper score |
|---|---|---|---|
| `continuous_ranked_probability_score` | distance of F and y, in units of y | lower | yes |
| `interval_coverage` | share of y inside their intervals | nominal | no |
| `mean_interval_width` | sharpness, in units of y | lower, at right coverage | no |
| `probability_integral_transform` | F(y) of each example | uniform | |
| `interval_coverage_curve` | observed by nominal coverage | on the diagonal | |

| either | what it is | better | proper score |
|---|---|---|---|
| `log_predictive_density` | lppd per example, nats | higher | yes |

| out of distribution | what it is | better |
|---|---|---|
| `predictive_entropy` | a score of strangeness, nats | |
| `out_of_distribution_auroc` | area under the ROC curve, chance 0.5 | higher |
| `out_of_distribution_aupr` | average precision, chance the share of strange examples | higher |
| `false_positive_rate` | false alarms when 95 % are found | lower |

A proper score is best in expectation for the true probabilities, so it can choose between
models; the others describe one. All are plain functions of NumPy arrays, computed in float64,
on every backend. For classes

- `probabilities` has the shape `(examples, classes)`, each row a distribution: what
  `BayesianEnsembleModel.predict` returns, or `softmax` of a model's logits. Average the members'
  PROBABILITIES before you come here: the mean of logits is another, sharper prediction.
- `labels` has the shape `(examples,)`, integers from 0 to `classes - 1`.

For `model.compile(metrics=[...])` there are `BrierScore`, `ExpectedCalibrationError`,
`ContinuousRankedProbabilityScore` and `IntervalCoverage`.

>>> probabilities = ensemble.predict(x_test)
>>> kl.calibration.negative_log_likelihood(probabilities, y_test)  # nats an example
"""

from keras_langevin.calibration.classification import (
    accuracy,
    brier_score,
    negative_log_likelihood,
    predictive_entropy,
)
from keras_langevin.calibration.intervals import (
    interval_coverage,
    interval_coverage_curve,
    mean_interval_width,
    probability_integral_transform,
)
from keras_langevin.calibration.metrics import (
    BrierScore,
    ContinuousRankedProbabilityScore,
    ExpectedCalibrationError,
    IntervalCoverage,
)
from keras_langevin.calibration.out_of_distribution import (
    false_positive_rate,
    out_of_distribution_aupr,
    out_of_distribution_auroc,
)
from keras_langevin.calibration.predictive_density import log_predictive_density
from keras_langevin.calibration.ranked_probability import continuous_ranked_probability_score
from keras_langevin.calibration.reliability import (
    ReliabilityCurve,
    expected_calibration_error,
    reliability_curve,
)
from keras_langevin.calibration.selective import (
    RiskCoverageCurve,
    area_under_risk_coverage,
    risk_coverage_curve,
)
from keras_langevin.calibration.temperature import TemperatureScaling, temperature_scaling

__all__ = [
    "BrierScore",
    "ContinuousRankedProbabilityScore",
    "ExpectedCalibrationError",
    "IntervalCoverage",
    "ReliabilityCurve",
    "RiskCoverageCurve",
    "TemperatureScaling",
    "accuracy",
    "area_under_risk_coverage",
    "brier_score",
    "continuous_ranked_probability_score",
    "expected_calibration_error",
    "false_positive_rate",
    "interval_coverage",
    "interval_coverage_curve",
    "log_predictive_density",
    "mean_interval_width",
    "negative_log_likelihood",
    "out_of_distribution_aupr",
    "out_of_distribution_auroc",
    "predictive_entropy",
    "probability_integral_transform",
    "reliability_curve",
    "risk_coverage_curve",
    "temperature_scaling",
]
