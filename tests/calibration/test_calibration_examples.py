"""The examples of the docstrings give what they say."""

import doctest
import importlib

import numpy as np
from targets.rows import every_row

import keras_langevin as kl

FILES = [
    "intervals",
    "out_of_distribution",
    "predictive_density",
    "ranked_probability",
    "reliability",
    "selective",
    "temperature",
]


@every_row("file", FILES)
def test_examples(file):
    module = importlib.import_module(f"keras_langevin.calibration.{file}")
    results = doctest.testmod(module, extraglobs={"kl": kl, "np": np})
    assert results.attempted > 0 and results.failed == 0
