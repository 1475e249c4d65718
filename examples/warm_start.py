"""I already have a trained model. How do I get its posterior?

    python examples/warm_start.py

Loads the trained model, compiles it anew with a sampler, trains on from its weights, and is done:
three lines. Here the model is a small convolutional network for scikit-learn's digits, trained by
Adam and saved as you would. The sampler's prior is wide, so that it leaves the trained weights
where they are, and it burns in for some epochs so that the spread around them can arise. AUROC:
how well doubt tells digits from images that are none, digits with their pixels shuffled.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_langevin as kl

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def trained_model(x, y, path):
    """What you have: a model, trained with early stopping and saved."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile("adam", LOSS)
    stop = keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)
    model.fit(x, y, 32, 100, validation_split=0.1, callbacks=[stop], verbose=0)
    model.save(path)


def report(name, probabilities, noise, y):
    nll = kl.calibration.negative_log_likelihood(probabilities, y)
    scores = [kl.calibration.predictive_entropy(p) for p in (probabilities, noise)]
    auroc = kl.calibration.out_of_distribution_auroc(*scores)
    accuracy = kl.calibration.accuracy(probabilities, y)
    print(f"{name:<10} accuracy {accuracy:.1%}  NLL {nll:.3f}  AUROC {auroc:.3f}")


def main():
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8, 1) / 16).astype("float32")
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.4, stratify=y, random_state=0)
    noise = np.random.default_rng(0).permuted(x_test.reshape(len(x_test), -1), axis=1)
    noise = noise.reshape(x_test.shape)  # no digits

    with tempfile.TemporaryDirectory() as folder:
        trained_model(x, y, Path(folder) / "mine.keras")
        model = keras.models.load_model(Path(folder) / "mine.keras")
    softmax = keras.Sequential([model, keras.layers.Softmax()])
    report("trained", *(softmax.predict(a, verbose=0) for a in (x_test, noise)), y_test)

    model.compile(kl.QDOPLangevin(num_data=len(x), prior=kl.priors.FanInNormal(50)), LOSS)
    sampler = kl.PosteriorSampler(burn_in=40)
    model.fit(x, y, batch_size=32, epochs=120, callbacks=[sampler], verbose=0)

    ensemble = sampler.ensemble()
    report("ensemble", *(ensemble.predict(a, verbose=0) for a in (x_test, noise)), y_test)


if __name__ == "__main__":
    main()
