"""Wherever Adam trains, a sampler with all defaults samples, or says in a sentence why not."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import ops, tree
from zoo.row import BATCH, EXAMPLES
from zoo.table import rows_here

import keras_langevin as kl
from keras_langevin.weights import parameters


def values(model):
    return [ops.convert_to_numpy(v) for v in parameters(model)]


@pytest.mark.timeout(420)  # nothing hangs
@pytest.mark.parametrize("row", rows_here("three lines"))
def test_three_lines_are_enough(row):
    x, y = row.data()
    model = row.compiled(kl.QDOPLangevin(num_data=EXAMPLES))
    sampler = kl.PosteriorSampler()

    def fit():
        model.fit(x, y, batch_size=BATCH, epochs=4, verbose=0, callbacks=[sampler], **row.fit)

    if row.refused is not None:
        before = values(model)
        with pytest.raises(ValueError, match=row.refused):
            fit()
        for old, new in zip(before, values(model), strict=True):
            np.testing.assert_array_equal(old, new)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit()
    said = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert (row.warned is not None) == bool(said), said
    assert all(re.search(row.warned, words) for words in said), said
    ensemble = sampler.ensemble(output=row.output)
    members = tree.flatten(ensemble.predict_members(x, batch_size=BATCH, verbose=0))
    assert all(np.isfinite(m).all() for m in members)
    assert any(np.ptp(m, axis=0).max() > 0 for m in members)
    assert np.isfinite(
        ensemble.evaluate(x, y, batch_size=BATCH, verbose=0, return_dict=True)["loss"]
    )
    assert keras.tree.flatten(ensemble.predict(x, batch_size=BATCH, verbose=0))
