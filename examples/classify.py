"""How sure is my classifier? Samples of the posterior in place of one trained network.

    python examples/classify.py

scikit-learn's digits. The script trains the network once with Adam and early stopping, and once
with a sampler, and compares accuracy, negative log-likelihood (NLL, lower is better) and how well
doubt tells digits from images that are none, digits with their pixels shuffled. Saves a figure of
the digits that the ensemble doubts most.

Two choices are made here. The prior: one scale of 50 for all kernels, a wide one. The temperature:
at 1, Bayes' rule, the NLL is 0.09 to 0.11, level with Adam's; below 1 the samples keep closer to
the best weights, and predict better here (`choose_temperature.py`).
"""

import keras
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_langevin as kl

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network():
    layers = [keras.Input((64,)), keras.layers.Dense(100, "relu"), keras.layers.Dense(10)]
    return keras.Sequential(layers)


def adam(x, y):
    model = network()
    model.compile("adam", LOSS)
    stop = keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)
    model.fit(x, y, 32, 200, validation_split=0.1, callbacks=[stop], verbose=0)
    return keras.Sequential([model, keras.layers.Softmax()])


def posterior(x, y):
    model = network()
    prior = kl.priors.FanInNormal(50)
    model.compile(kl.QDOPLangevin(num_data=len(x), temperature=0.1, prior=prior), LOSS)
    sampler = kl.PosteriorSampler(burn_in=50)
    model.fit(x, y, batch_size=32, epochs=100, callbacks=[sampler], verbose=0)
    return sampler.ensemble()


def main():
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")  # inputs of size one
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.4, stratify=y, random_state=0)
    others = np.random.default_rng(0).permuted(x_test, axis=1)

    for name, train in {"Adam": adam, "posterior": posterior}.items():
        model = train(x, y)
        p, p_others = (model.predict(images, verbose=0) for images in (x_test, others))
        accuracy = kl.calibration.accuracy(p, y_test)
        nll = kl.calibration.negative_log_likelihood(p, y_test)
        doubt = (kl.calibration.predictive_entropy(each) for each in (p, p_others))
        auroc = kl.calibration.out_of_distribution_auroc(*doubt)
        print(f"{name:<10} accuracy {accuracy:.1%}  NLL {nll:.3f}  AUROC {auroc:.3f}")

    doubt = kl.calibration.predictive_entropy(p)  # of the ensemble, the last model
    _, axes = plt.subplots(2, 5, figsize=(9, 4), layout="constrained")
    for axis, i in zip(axes.flat, np.argsort(-doubt), strict=False):
        shares = ", ".join(f"{digit} {p[i, digit]:.0%}" for digit in np.argsort(-p[i])[:2])
        axis.imshow(x_test[i].reshape(8, 8), cmap="gray_r")
        axis.set_title(f"a {y_test[i]}: {shares}", fontsize=9)
        axis.set_axis_off()
    plt.savefig("classify.png", dpi=150)


if __name__ == "__main__":
    main()
