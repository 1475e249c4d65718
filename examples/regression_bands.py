"""How wide is the band in which new data lie, and how often do they lie there?

    python examples/regression_bands.py

Progression of diabetes from ten measurements (scikit-learn, 442 patients). The network says a mean
and a spread for each patient (`kl.losses.GaussianNLL`). The ensemble adds its doubt about both, so
that its 90 % intervals should hold 90 % of the patients it has not seen; those of one network
trained by Adam hold fewer. Saves a figure of the bands on one input alone.
"""

import keras
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import keras_langevin as kl

LEVELS = (0.05, 0.5, 0.95)


def network(features):
    return keras.Sequential(
        [keras.Input((features,)), keras.layers.Dense(50, "relu"), keras.layers.Dense(2)]
    )  # two outputs for each target: mean, and logarithm of the standard deviation


def posterior(x, y):
    model = network(x.shape[1])
    model.compile(kl.SGLD(num_data=len(x)), kl.losses.GaussianNLL())
    sampler = kl.PosteriorSampler(burn_in=100, thinning=2)
    model.fit(x, y, batch_size=32, epochs=300, callbacks=[sampler], verbose=0)
    return sampler.ensemble()


def adam(x, y):
    """An ensemble of one member, so that both are scored by the same lines."""
    model = network(x.shape[1])
    model.compile("adam", kl.losses.GaussianNLL())
    stop = keras.callbacks.EarlyStopping(patience=20, restore_best_weights=True)
    model.fit(x, y, 32, 500, validation_split=0.1, callbacks=[stop], verbose=0)
    return kl.BayesianEnsembleModel(model, [model.get_weights()])


def main():
    keras.utils.set_random_seed(0)
    x, y = load_diabetes(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y[:, None], test_size=0.5, random_state=0)
    inputs, targets = StandardScaler().fit(x), StandardScaler().fit(y)
    x, x_test = (inputs.transform(a).astype("float32") for a in (x, x_test))
    y, y_test = (targets.transform(a).astype("float32") for a in (y, y_test))

    for name, train in {"Adam": adam, "posterior": posterior}.items():
        ensemble = train(x, y)
        low, _, high = ensemble.predict_uncertainty(x_test, LEVELS, verbose=0)["quantiles"]
        inside = kl.calibration.interval_coverage(low, high, y_test)
        width = np.mean(high - low) * targets.scale_[0]
        nll = np.ravel(ensemble.evaluate(x_test, y_test, verbose=0))[0]
        print(f"{name:<10} 90 % intervals hold {inside:.1%}, width {width:.0f}, NLL {nll:.3f}")

    bmi = np.linspace(x[:, 2].min() - 1, x[:, 2].max() + 1, 200)[:, None]
    uncertainty = posterior(x[:, 2:3], y).predict_uncertainty(bmi, LEVELS, verbose=0)
    axes = kl.plotting.predictive_band(bmi, uncertainty, data=(x[:, 2], y[:, 0]), quantiles=LEVELS)
    axes.set(xlabel="body mass index, standardised", ylabel="progression, standardised")
    plt.savefig("regression_bands.png", dpi=150)


if __name__ == "__main__":
    main()
