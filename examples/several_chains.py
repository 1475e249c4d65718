"""Do several chains agree, and is the ensemble of all of them better than one chain?

    python examples/several_chains.py

Three chains on scikit-learn's breast cancer data, each from a network of its own that Adam has
trained first (a Bayesian deep ensemble). R-hat compares what the chains predict: near 1 they have
one law, above 1.05 each has stayed near its start. Weights of networks hardly ever mix, so look at
predictions, and take several chains where the number is large. Here it is: what one chain says of
its own spread is too little, and the ensemble of all is the one to use. Saves a figure.
"""

import keras
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import keras_langevin as kl

X, Y = load_breast_cancer(return_X_y=True)
X, X_TEST, Y, Y_TEST = train_test_split(X, Y[:, None], test_size=0.4, random_state=0, stratify=Y)
SCALER = StandardScaler().fit(X)
X, X_TEST = (SCALER.transform(a).astype("float32") for a in (X, X_TEST))
LOSS = keras.losses.BinaryCrossentropy(from_logits=True)


def train(chain):
    """Another start, another order of the data and other noise for each chain."""
    keras.utils.set_random_seed(chain)
    model = keras.Sequential(
        [keras.Input((X.shape[1],)), keras.layers.Dense(30, "tanh"), keras.layers.Dense(1)]
    )
    model.compile("adam", LOSS)
    model.fit(X, Y, batch_size=32, epochs=10, verbose=0)
    model.compile(kl.SGLD(num_data=len(X)), LOSS)
    sampler = kl.PosteriorSampler(burn_in=50, thinning=2)
    model.fit(X, Y, batch_size=32, epochs=200, callbacks=[sampler], verbose=0)
    return sampler


def main():
    ensemble = kl.sample_chains(train, num_chains=3, verbose=0)
    members = ensemble.predict_members(X_TEST, verbose=0)  # (members, patients, 1)
    chains = ensemble.split_chains(members)
    for number, chain in enumerate(chains, 1):
        print(f"chain {number}: {len(chain)} members, NLL {nll(chain):.4f}")
    print(f"all chains: {len(members)} members, NLL {nll(members):.4f}")

    log_likelihood = ensemble.log_likelihood(X_TEST, Y_TEST, verbose=0)[..., 0]
    by_chain = [chain.mean(axis=1) for chain in ensemble.split_chains(log_likelihood)]
    r_hat = float(kl.diagnostics.r_hat(by_chain))
    size = float(kl.diagnostics.effective_sample_size(by_chain))
    print(f"R-hat of the test log-likelihood {r_hat:.3f}, effective samples {size:.0f}")

    _, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    kl.plotting.trace(by_chain, axes).set_ylabel("mean test log-likelihood")
    plt.savefig("several_chains.png", dpi=150)


def nll(members):
    """Of the mean of the members' probabilities."""
    probability = np.clip(members.mean(axis=0), 1e-7, 1 - 1e-7)
    return kl.calibration.negative_log_likelihood(
        np.hstack([1 - probability, probability]), Y_TEST[:, 0]
    )


if __name__ == "__main__":
    main()
