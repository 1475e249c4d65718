"""Figures of chains, predictions and their calibration. They need matplotlib:
`pip install "keras_langevin[plots]"`; importing this package does not load it.

Every function takes NumPy arrays, draws on `ax`, or on a new figure of 5 x 3.5 inches when there
is none, and returns the matplotlib Axes, whose title and labels may be changed afterwards. None
shows a window, or changes matplotlib's settings.

| function | the question | what good looks like |
|---|---|---|
| `trace` | has the chain settled? | it wanders about one level |
| `rank` | do the chains agree? | steps inside the band |
| `log_predictive_density` | are there enough members? | the curve is flat at its end |
| `metric_spectrum` | is the learning rate stable? | every dot below the line |
| `reliability` | is it right as often as it is sure? | on the diagonal |
| `risk_coverage` | does it know when it is wrong? | a low curve that rises late |
| `entropy_histogram` | does it notice strange inputs? | two heaps apart from each other |
| `member_agreement` | do the members vote alike? | few disputed examples, yet some |
| `predictive_band` | regression: what does it predict? | data inside, doubt where they lack |
| `coverage` | regression: are its intervals right? | on the diagonal |

>>> ax = kl.plotting.reliability(ensemble.predict(x_test), y_test)
>>> ax.figure.savefig("reliability.png")
"""

from keras_langevin.plotting.chains import rank, trace
from keras_langevin.plotting.classification import reliability, risk_coverage
from keras_langevin.plotting.curvature import metric_spectrum
from keras_langevin.plotting.ensemble_size import log_predictive_density
from keras_langevin.plotting.regression import coverage, predictive_band
from keras_langevin.plotting.uncertainty import entropy_histogram, member_agreement

__all__ = [
    "coverage",
    "entropy_histogram",
    "log_predictive_density",
    "member_agreement",
    "metric_spectrum",
    "predictive_band",
    "rank",
    "reliability",
    "risk_coverage",
    "trace",
]
