"""Replicated Bayesian linear regressions: `Dense(R)` is R independent chains.

Every unit sees the same inputs and targets, has its own weights, metric and noise, and a
Gaussian posterior in closed form, so that one short `fit` gives the covariance of the sampler
to a few percent. All references are NumPy in float64 and share no code with the package.
"""

import keras
import numpy as np
from keras import ops

import keras_langevin as kl

READ_EVERY = 8  # steps from one reading of the weights to the next
# As many steps are compiled into one execution where Keras can (not on torch).
STEPS_PER_EXECUTION = 1 if keras.backend.backend() == "torch" else READ_EVERY


class Regression:
    """y = x w + b + N(0, 1), prior N(0, prior_stddev²) on w and b.

    Attributes:
        hessian: H of G(θ) = U(θ)/N, shape (d + 1, d + 1), the bias last.
        mean: Posterior mean, shape (d + 1,).
    """

    def __init__(self, num_data=60, replicas=8000, prior_stddev=1.0, seed=0):
        rng = np.random.default_rng(seed)
        self.n, self.replicas, self.prior_stddev = num_data, replicas, prior_stddev
        self.x = np.array([2.0, -1.0]) + rng.normal(size=(num_data, 2)) * np.array([0.5, 1.5])
        self.y = self.x @ rng.normal(size=2) + 0.3 + rng.normal(size=num_data)
        self.design = np.c_[self.x, np.ones(num_data)]
        self.hessian = self.design.T @ self.design / num_data
        self.hessian += np.eye(3) / num_data / prior_stddev**2
        self.mean = np.linalg.solve(self.hessian, self.design.T @ self.y / num_data)

    def model(self, optimizer, loss=None):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(self.replicas)])
        loss = HalfSquaredError() if loss is None else loss
        jit_compile = keras.backend.backend() != "torch"
        model.compile(
            optimizer, loss=loss, jit_compile=jit_compile, steps_per_execution=STEPS_PER_EXECUTION
        )
        kernel, bias = model.layers[-1].kernel, model.layers[-1].bias
        kernel.assign(np.repeat(self.mean[:2, None], self.replicas, 1))
        bias.assign(np.full(self.replicas, self.mean[2]))
        kl.track_statistics(model, optimizer)
        return model

    def second_moment(self, optimizer, start, steps=480, batch_size=None, whole_first=True):
        """E[(θ − μ)(θ − μ)ᵀ] over chains and steps of one compiled `fit`, and the largest
        E[θ − μ] in standard errors, known from the spread over the independent chains.

        The chains start with the covariance `start`, so that slow directions need no burn-in:
        the exact law must be left as it is. The metric starts at the posterior mean, from one
        step of learning rate zero on all data (or on a minibatch, with `whole_first=False`).
        """
        loss = HalfSquaredError() if batch_size is None else WeightedHalfSquaredError()
        model = self.model(optimizer, loss)
        learning_rate = float(ops.convert_to_numpy(optimizer.learning_rate))
        optimizer.learning_rate = 0.0
        self.fit(model, 1, batch_size, whole=whole_first)
        optimizer.learning_rate = learning_rate
        self.place(model, start)
        recorder = Recorder()
        self.fit(model, steps, batch_size, callbacks=[recorder])
        offset = np.stack(recorder.draws) - self.mean[:, None]
        means = offset.mean(axis=0)
        errors = means.std(axis=1) / np.sqrt(self.replicas)
        second_moment = np.einsum("tir,tjr->ij", offset, offset) / offset[:, 0].size
        return second_moment, np.abs(means.mean(axis=1) / errors).max()

    def fit(self, model, steps, batch_size, whole=False, callbacks=()):
        data = Steps(self, steps, None if whole else batch_size, weighted=batch_size is not None)
        model.fit(data, epochs=1, verbose=0, shuffle=False, callbacks=list(callbacks))

    def place(self, model, covariance):
        """Draws with exactly this covariance around the posterior mean."""
        draws = np.random.default_rng(2).normal(size=(3, self.replicas))
        draws -= draws.mean(axis=1, keepdims=True)
        draws = np.linalg.solve(np.linalg.cholesky(np.cov(draws, bias=True)), draws)
        draws = self.mean[:, None] + np.linalg.cholesky(covariance) @ draws
        model.layers[-1].kernel.assign(draws[:2])
        model.layers[-1].bias.assign(draws[2])

    def outer_product_moments(self):
        """M00, M0i, Mii at the posterior mean, one example's gradient at a time."""
        residuals = self.design @ self.mean - self.y
        gradients = self.design * residuals[:, None]
        moment = sum(np.outer(g, g) for g in gradients) / self.n
        return moment[2, 2], moment[2, :2], np.diag(moment)[:2]

    def identity(self):
        return np.eye(3)

    def quasi_diagonal_inverse(self, damping=1.0):
        """C of QDOP with the prior in the metric, through the dense matrix it inverts."""
        m00, m0i, mii = self.outer_product_moments()
        added = damping / self.n / self.prior_stddev**2
        matrix = np.zeros((3, 3))
        matrix[:2, :2] = np.outer(m0i, m0i) / (m00 + added)
        np.fill_diagonal(matrix[:2, :2], mii + added)
        matrix[2, 2], matrix[2, :2], matrix[:2, 2] = m00 + added, m0i, m0i
        return np.linalg.inv(matrix)

    def diagonal_inverse(self, damping=1.0):
        m00, _, mii = self.outer_product_moments()
        return np.diag(1 / (np.append(mii, m00) + damping / self.n / self.prior_stddev**2))

    def batch_normalization_inverse(self):
        """C = P Pᵀ of BNP without ε, where a batch holds all data, so that q = 1."""
        mean, stddev = self.x.mean(axis=0), self.x.std(axis=0)
        shear = np.eye(3)
        shear[2, :2] = -mean
        p = shear @ np.diag(np.append(1 / stddev, 1.0))
        return p @ p.T

    def rmsprop_inverse(self, epsilon=1e-7):
        """C after the first step: from the gradient of the mean loss at the posterior mean,
        without the prior, squared and averaged over the kernel and over the bias."""
        gradient = self.design.T @ (self.design @ self.mean - self.y) / self.n
        kernel, bias = np.mean(gradient[:2] ** 2), gradient[2] ** 2
        return np.diag((np.array([kernel, kernel, bias]) + epsilon) ** -0.5)

    def exact_covariance(
        self, metric_inverse, learning_rate, temperature=1.0, batch_size=None, injected=None
    ):
        """Of the discrete chain with this C, on full batches or on independent minibatches drawn
        with replacement; `injected` C is the covariance of the noise of one step, 2ηT/N C by
        default. Exact, from the fixed point of the recursion of second moments."""
        h, c, eta = self.hessian, metric_inverse, learning_rate
        if batch_size is None:
            return temperature / self.n * np.linalg.inv(h - eta / 2 * h @ c @ h)
        step = np.eye(3) - eta * c @ h
        gradients = self.design * (self.design @ self.mean - self.y)[:, None]
        gradients -= gradients.mean(0)
        noise = gradients.T @ gradients / self.n
        injected = 2 * eta * temperature / self.n if injected is None else injected
        source = injected * c + eta**2 / batch_size * c @ noise @ c.T
        operator = np.eye(9) - np.kron(step, step)
        data_hessian = self.design.T @ self.design / self.n
        for row in self.design:
            deviation = c @ (np.outer(row, row) - data_hessian)
            operator -= eta**2 / batch_size / self.n * np.kron(deviation, deviation)
        return np.linalg.solve(operator, source.ravel()).reshape(3, 3)


def relative_eigenvalues(covariance, reference):
    """Generalised eigenvalues of the pair: all 1 where they agree."""
    factor = np.linalg.inv(np.linalg.cholesky(reference))
    return np.linalg.eigvalsh(factor @ covariance @ factor.T)


class HalfSquaredError(keras.losses.Loss):
    """−log N(y; ŷ, 1) summed over the replicas, without the constant."""

    def call(self, y_true, y_pred):
        return 0.5 * ops.sum(ops.square(y_true - y_pred), axis=-1)


class WeightedHalfSquaredError(keras.losses.Loss):
    """The same with a weight for each example and replica behind the targets."""

    def call(self, y_true, y_pred):
        y, weights = y_true[:, :1], y_true[:, 1:]
        return 0.5 * ops.sum(weights * ops.square(y - y_pred), axis=-1)


class Steps(keras.utils.PyDataset):
    """All data as one batch, `steps` times. With a batch size every replica has its own
    minibatch, drawn with replacement: multinomial weights whose expectation is one."""

    def __init__(self, regression, steps, batch_size=None, weighted=False):
        super().__init__()
        self.steps, self.batch_size, self.r = steps, batch_size, regression
        self.weighted = weighted
        self.x = regression.x.astype("float32")
        self.y = regression.y[:, None].astype("float32")
        self.rng = np.random.default_rng(1)

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        if not self.weighted:
            return self.x, self.y
        return self.x, np.concatenate([self.y, self.weights()], axis=1)

    def weights(self):
        n, replicas = self.r.n, self.r.replicas
        if self.batch_size is None:
            return np.ones((n, replicas), "float32")
        drawn = self.rng.integers(0, n, size=(replicas, self.batch_size))
        drawn += n * np.arange(replicas)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n * replicas).reshape(replicas, n)
        return (counts.T * (n / self.batch_size)).astype("float32")


class Constant(keras.utils.PyDataset):
    """One batch, `steps` times: thousands of steps in one epoch of `fit`."""

    def __init__(self, x, y, steps):
        super().__init__()
        self.batch, self.steps = (x.astype("float32"), y.astype("float32")), steps

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        return self.batch


class Recorder(keras.callbacks.Callback):
    """The weights at every reading after `burn_in` steps, shape (inputs + 1, replicas) each,
    or (inputs, replicas) without bias."""

    def __init__(self, burn_in=0):
        super().__init__()
        self.burn_in, self.draws = burn_in, []

    def on_train_batch_end(self, batch, logs=None):
        if batch >= self.burn_in and batch % READ_EVERY == READ_EVERY - 1:
            layer = self.model.layers[-1]
            weights = [ops.convert_to_numpy(w).reshape(-1, w.shape[-1]) for w in layer.weights]
            kernel_and_bias = weights[: 1 + layer.use_bias]
            self.draws.append(np.concatenate(kernel_and_bias).astype("float64"))
