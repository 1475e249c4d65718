"""Which temperature should I take?

    python examples/choose_temperature.py

1 is the posterior of Bayes' rule and the right start. Below 1 the samples crowd around the best
weights: often a little better in prediction, always too sure for what the model assumes. So let
held-out data choose it (`kl.choose_temperature`), and say so when you report it. Here on
scikit-learn's digits, from a network trained by Adam; the script tests its choice once.
"""

import keras
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_langevin as kl

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TEMPERATURES = (1.0, 0.1, 0.01)


def network():
    layers = [keras.Input((64,)), keras.layers.Dense(100, "relu"), keras.layers.Dense(10)]
    return keras.Sequential(layers)


def sample(temperature, start, x, y):
    keras.utils.set_random_seed(0)
    model = network()
    model.set_weights(start)
    prior = kl.priors.FanInNormal(50)
    optimizer = kl.RMSPropLangevin(num_data=len(x), temperature=temperature, prior=prior)
    model.compile(optimizer, LOSS)
    sampler = kl.PosteriorSampler(burn_in=50)
    model.fit(x, y, batch_size=32, epochs=150, callbacks=[sampler], verbose=0)
    return sampler


def nll(ensemble, x, y):
    return kl.calibration.negative_log_likelihood(ensemble.predict(x, verbose=0), y)


def main():
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.4, stratify=y, random_state=0)
    x, x_held, y, y_held = train_test_split(x, y, test_size=0.3, stratify=y, random_state=0)

    model = network()
    model.compile("adam", LOSS)
    model.fit(x, y, batch_size=32, epochs=30, verbose=0)
    start = model.get_weights()
    adam = kl.BayesianEnsembleModel(model, [start])
    print(f"Adam          held-out NLL {nll(adam, x_held, y_held):.3f}")

    found = kl.choose_temperature(
        lambda temperature: sample(temperature, start, x, y), (x_held, y_held), TEMPERATURES
    )
    test = {"chosen": nll(found.ensemble, x_test, y_test), "Adam": nll(adam, x_test, y_test)}
    print(
        f"chosen T = {found.temperature:g}: test NLL {test['chosen']:.3f}, Adam {test['Adam']:.3f}"
    )

    plt.semilogx(list(found.losses), list(found.losses.values()), "o-", label="posterior")
    plt.axhline(nll(adam, x_held, y_held), color="gray", label="Adam")
    plt.gca().set(xlabel="temperature", ylabel="held-out NLL, nats", ylim=(0, 0.2))
    plt.legend()
    plt.savefig("choose_temperature.png", dpi=150)


if __name__ == "__main__":
    main()
