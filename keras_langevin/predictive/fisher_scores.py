"""The derivative of an example's loss by the outputs, as it is for labels that the model draws.

A family's `fisher_scores(outputs, draws)` is linear in `draws`, shaped as the outputs or with more
axes in front, and

    E[score scoreᵀ] = Λ,   the Fisher information of the outputs,

for draws of mean zero and variance one, independent within an example. Drawn labels give the
same mean and covariance, and the second moments of the gradients need no more than these. The
difference: for fixed draws the score is a smooth function of the outputs, so that the metric can
be differentiated, and evaluated at two weights with common random numbers, where a drawn label
jumps. Unit vectors as draws give the columns of a root of Λ.

They are of one label. `scores` gives those of the loss as Keras averages it: where it is a mean
over positions (tokens, pixels; for `BinaryCrossentropy` the units too), Λ is that of their mean,
so that JᵀΛJ averaged over examples is the Gauss-Newton matrix of the mean loss.
"""

import keras


def scores(families, outputs, draws):
    """The scores of the mean loss for every output, in the structure of the outputs."""
    flat = zip(*map(keras.tree.flatten, (families, outputs, draws)), strict=True)
    flat = [f.fisher_scores(o, d) / f.num_labels(o) ** 0.5 for f, o, d in flat]
    return keras.tree.pack_sequence_as(outputs, flat)
