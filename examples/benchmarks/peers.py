"""SGLD of other packages on a dense network with relu, for the benchmarks of this folder.

`pip install blackjax` (JAX), `pip install posteriors` (torch); what is not installed is left out.
Each advances by one compiled or eager step a batch, as its documentation does it. θ moves by
−η ∇U/N + √(2η/N) z with the same prior, as `kl.SGLD(η, num_data=N)`.
"""

import importlib.util

import keras
import numpy as np

import keras_langevin as kl


def installed():
    """From the name of a peer of this backend to its class."""
    peers = {"jax": [Blackjax], "torch": [Posteriors]}.get(keras.backend.backend(), [])
    return {p.name: p for p in peers if importlib.util.find_spec(p.name.split()[0])}


def batches(x, y, batch_size, generator=None):
    """Pairs of tensors, of one pass over the data; in random order with a NumPy generator. What is
    left over at the end is left out."""
    rows = np.arange(len(x))
    if generator is not None:
        generator.shuffle(rows)
    count = len(rows) // batch_size
    tensor = keras.ops.convert_to_tensor
    parts = rows[: count * batch_size].reshape(count, batch_size)
    return [(tensor(x[part]), tensor(y[part])) for part in parts]


def categorical(logits, y):
    """Mean log probability of the labels, by the backend's own functions."""
    if keras.backend.backend() == "torch":
        import torch

        return -torch.nn.functional.cross_entropy(logits, y)
    import jax

    return jax.nn.log_softmax(logits)[jax.numpy.arange(len(y)), y].mean()


def gaussian(outputs, y):
    """Mean log density of N(outputs, 1), summed over the outputs, without its constant."""
    return (-0.5 * ((outputs - y) ** 2).sum(-1)).mean()


PRIOR = kl.priors.FanInNormal(10.0)


def prior_precisions(model):
    """Of `PRIOR`, one a variable."""
    return [PRIOR.for_variable(v).precision(v.shape) for v in model.trainable_variables]


def log_prior(weights, precisions):
    return -0.5 * sum(p * (w**2).sum() for p, w in zip(precisions, weights, strict=True))


class Blackjax:
    """`blackjax.sgld` on a Keras model.

    Args:
        model: Keras model, whose weights the chain starts from.
        log_likelihood: `categorical` or `gaussian`.
        learning_rate: η.
        num_data: N.
        seed: Of its noise.
    """

    name = "blackjax SGLD"

    def __init__(self, model, log_likelihood, learning_rate, num_data, seed=0):
        import blackjax
        import jax

        precisions = prior_precisions(model)

        def log_posterior(weights, batch):
            x, y = batch
            outputs, _ = model.stateless_call(weights, [], x)
            return num_data * log_likelihood(outputs, y) + log_prior(weights, precisions)

        self.jax = jax
        self.kernel = jax.jit(blackjax.sgld(jax.grad(log_posterior)).step, donate_argnums=1)
        self.weights = [jax.numpy.array(v.value) for v in model.trainable_variables]
        self.key, self.step_size = jax.random.key(seed), learning_rate / num_data

    def run(self, batches):
        """One step a batch, and waits for the last."""
        for batch in batches:
            self.key, key = self.jax.random.split(self.key)
            self.weights = self.kernel(key, self.weights, batch, self.step_size)
        self.jax.block_until_ready(self.weights)

    def get_weights(self):
        """As of a Keras model."""
        return [np.array(w) for w in self.weights]


class Posteriors:
    """`posteriors.sgmcmc.sgld` on a network of torch's own layers, which are quicker than Keras'.
    The arguments are those of `Blackjax`."""

    name = "posteriors SGLD"

    def __init__(self, model, log_likelihood, learning_rate, num_data, seed=0):
        import posteriors
        import torch

        torch.manual_seed(seed)

        linear = [layer for layer in model.layers if hasattr(layer, "kernel")]
        shapes = [tuple(layer.kernel.shape) for layer in linear]
        parts = [torch.nn.Linear(*shape) for shape in shapes]
        layers = [part for linear in parts for part in (linear, torch.nn.ReLU())][:-1]
        network = torch.nn.Sequential(*layers)
        for layer, part in zip(linear, parts, strict=True):
            part.weight.data = torch.tensor(keras.ops.convert_to_numpy(layer.kernel).T.copy())
            part.bias.data = torch.tensor(keras.ops.convert_to_numpy(layer.bias))

        precisions = prior_precisions(model)

        def log_posterior(weights, batch):
            x, y = batch
            outputs = torch.func.functional_call(network, weights, x)
            prior = log_prior(weights.values(), precisions)
            return num_data * log_likelihood(outputs, y) + prior, outputs

        self.transform = posteriors.sgmcmc.sgld.build(log_posterior, learning_rate / num_data)
        self.state = self.transform.init(dict(network.named_parameters()))

    def run(self, batches):
        for batch in batches:
            self.state, _ = self.transform.update(self.state, batch, inplace=True)

    def get_weights(self):
        arrays = [w.detach().numpy() for w in self.state.params.values()]
        return [np.array(w.T if w.ndim == 2 else w) for w in arrays]
