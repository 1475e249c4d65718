"""What `kl.NGD` and `kl.SNGD` share: a Fisher metric at the present weights, the noise of
minibatches as the noise, and the temperature that follows from it."""

import math
import warnings

from keras import ops

from keras_langevin.arguments import (
    integer,
    non_negative_number,
    one_of,
    positive_number,
    shorten,
)
from keras_langevin.keras_internals import batches_of_fit, dataset_of_fit
from keras_langevin.optimizers.minibatch_correction import checked_correction, reduced
from keras_langevin.optimizers.sampler import Sampler
from keras_langevin.optimizers.sampler_arguments import checked_num_data
from keras_langevin.preconditioners.dense_fisher import DenseFisher
from keras_langevin.preconditioners.structured_fisher import DiagonalFisher, QuasiDiagonalFisher
from keras_langevin.random_batches import RandomBatches, epoch_balance
from keras_langevin.training_data import joined, num_examples

STRUCTURES = {
    "dense": DenseFisher,
    "quasi_diagonal": QuasiDiagonalFisher,
    "diagonal": DiagonalFisher,
}


class NaturalGradient(Sampler):
    """Natural gradient dynamics in M(θ) = F(θ) + δ I.

    Args:
        injects_noise: False, the noise is that of the minibatches and sets the temperature;
            True, noise of covariance 2ηT/N M⁻¹ is injected, as in every other sampler here.
        minibatch_correction: As in `kl.LangevinOptimizer`, where noise is injected.
        Others: see `kl.NGD`.
    """

    injects_noise = True

    def __init__(
        self,
        learning_rate,
        *,
        num_data,
        temperature=None,
        batch_size=None,
        injects_noise=False,
        minibatch_correction=None,
        structure="dense",
        fisher="model",
        damping=0.1,
        num_examples=1024,
        num_draws=None,
        output=None,
        noise_stddev=None,
        **kwargs,
    ):
        one_of("structure", structure, tuple(STRUCTURES))
        arguments = {
            "fisher": fisher,
            "damping": damping,
            "num_examples": num_examples,
            "output": output,
            "noise_stddev": noise_stddev,
        }
        if structure == "dense":
            arguments["num_draws"] = num_draws
        elif num_draws is not None:
            raise ValueError(
                '`num_draws` is for structure="dense". Received: num_draws='
                f"{shorten(num_draws)}, structure={structure!r}"
            )
        if temperature is not None:
            check = non_negative_number if injects_noise else positive_number
            temperature = check("temperature", temperature)
        if batch_size is not None:
            batch_size = integer("batch_size", batch_size, at_least=1)
        if not injects_noise:
            learning_rate = _rate(learning_rate, num_data, temperature, batch_size)
        super().__init__(
            learning_rate,
            num_data=num_data,
            temperature=1.0 if temperature is None else temperature,
            preconditioner=STRUCTURES[structure](**arguments),
            **kwargs,
        )
        self.structure, self.injects_noise, self.batch_size = structure, injects_noise, batch_size
        self._given = {"temperature": temperature, "batch_size": batch_size}
        if not injects_noise:
            self._set_batch_size(learning_rate, temperature, batch_size)
        self.minibatch_correction = checked_correction(
            minibatch_correction, learning_rate, self.num_data, self.temperature
        )

    # ----------------------------------------------------------------------- temperature

    @property
    def momentum(self):
        """0 where noise is injected, so that the limits of overdamped dynamics hold."""
        return 0.0 if self.injects_noise else None

    def _set_batch_size(self, learning_rate, temperature, batch_size):
        """The batch size, given or from the temperature."""
        n = self.num_data
        if temperature is None and batch_size is None:
            raise ValueError(
                "The noise of the minibatches is the noise of this sampler: pass the `batch_size` "
                "that `fit` will use, or the `temperature` and read the batch size that it needs "
                "from `optimizer.batch_size`. Received: temperature=None, batch_size=None."
            )
        if batch_size is not None and batch_size > n:
            raise ValueError(
                f"`batch_size` must be at most num_data. Received: batch_size={batch_size}, "
                f"num_data={n}"
            )
        if temperature is None:
            return
        if callable(learning_rate):
            raise ValueError(
                "A `temperature` needs a constant learning rate, which together with the batch "
                "size sets it. Received: a schedule and temperature="
                f"{temperature}. Pass `batch_size` instead; the temperature then follows the "
                "schedule."
            )
        needed = n / (2 * temperature / learning_rate + 1) if learning_rate else 0
        if batch_size is None:
            if round(needed) < 1:
                rate = 2 * temperature / max(n - 1, 0.5)
                raise ValueError(
                    f"Temperature {temperature:g} needs a batch size of {needed:.2g}, expected at "
                    f"least 1. Received: learning_rate={learning_rate}, num_data={n}. Raise the "
                    f"learning rate to {rate:.3g} or more, or lower the temperature."
                )
            self.batch_size = round(needed)
        elif abs(batch_size - needed) > 1:
            raise ValueError(
                f"Batches of {batch_size} at learning rate {learning_rate:g} sample at temperature "
                f"{self.temperature:.4g}. Received: temperature={temperature:g}. Use "
                f"batch_size={max(round(needed), 1)}, or "
                f"learning_rate={2 * temperature * batch_size / max(n - batch_size, 1):.4g}."
            )

    @property
    def temperature(self):
        """T. With the noise of minibatches (ηN/2B)(1 − B/N) at the present learning rate."""
        if self.injects_noise:
            return self._temperature
        share = 1 / self.batch_size - 1 / self.num_data
        return self.present_learning_rate * self.num_data / 2 * share

    @temperature.setter
    def temperature(self, value):
        self._temperature = value

    def prepare_fit(self, model):
        """Shows the metric the training data, and checks that their batches are those that the
        temperature was computed for. Called by `kl.PosteriorSampler`."""
        batches = batches_of_fit(model, 1)
        if not batches:
            return
        batch_size, dataset = num_examples(batches[0]), dataset_of_fit(model)
        metric = self.preconditioner
        if not metric.is_filled:
            if isinstance(dataset, RandomBatches):
                x, y = dataset.examples(metric.num_examples)
            else:
                batches = batches_of_fit(model, math.ceil(metric.num_examples / batch_size))
                x, y = (joined(part) for part in list(zip(*batches, strict=True))[:2])
            metric.set_data(x, y)
        if not self.injects_noise:
            self._check_batch_size(batch_size * (self.gradient_accumulation_steps or 1))
            self._warn_about_epochs(dataset)

    def _check_batch_size(self, batch_size):
        if batch_size != self.batch_size:
            raise ValueError(
                f"`fit` must use batches of {self.batch_size} examples, from which the "
                f"temperature {self.temperature:.4g} was computed. Received: batches of "
                f"{batch_size}. Pass `batch_size={self.batch_size}` to `fit` or "
                f"`batch_size={batch_size}` to {type(self).__name__}."
            )

    def _warn_about_epochs(self, dataset):
        if isinstance(dataset, RandomBatches):
            return
        n, b = self.num_data, self.batch_size
        balance = epoch_balance(self.present_learning_rate, max(n // b, 1))
        rest = f", and the last batch of an epoch has only {n % b:g} examples" if n % b else ""
        warnings.warn(
            "Batches that go through shuffled data balance each other out within an epoch: at "
            f"ends of epochs the samples spread as at about {balance:.2f} of the temperature "
            f"{self.temperature:.3g}{rest}. Pass `kl.RandomBatches(x, y, {b})` to `fit`.",
            stacklevel=2,
        )

    # ------------------------------------------------------------------------------ step

    def advance(self, values, gradients, statistics, metric, learning_rate):
        return self.move(values, self.add_prior(values, gradients), metric, learning_rate), []

    def move(self, values, slopes, metric, learning_rate):
        """The new values; `slopes` are the gradient of G on the minibatch."""
        step = self.displacement(slopes, metric, learning_rate)
        return [θ + d for θ, d in zip(values, step, strict=True)]

    def displacement(self, slopes, metric, learning_rate):
        """−η M⁻¹ (gradient and noise), all at the metric of the present weights."""
        normals = self.normals([g.shape for g in slopes])
        if not self.injects_noise:
            # Minibatches bring noise of covariance c F; c δ I completes it to c M.
            scale = (self.preconditioner.damping * self._minibatch_variance()) ** 0.5
            slopes = [g + scale * ξ for g, ξ in zip(slopes, normals, strict=True)]
        step = [-learning_rate * d for d in self.preconditioner.solve(metric, slopes)]
        if self.injects_noise:
            noise = self.preconditioner.sample(metric, normals)
            scale = self.noise_scale(learning_rate)
            step = [d + scale * n for d, n in zip(step, noise, strict=True)]
        return step

    def correction_rate(self, learning_rate):
        """ηT/N, by which the correction k enters a step."""
        if self.injects_noise:
            return learning_rate * self.step_temperature() / self.num_data
        return learning_rate**2 / 2 * self._minibatch_variance()

    def _minibatch_variance(self):
        """c = (1/B)(1 − B/N): the gradient of a minibatch has the covariance c F."""
        return 1 / self.batch_size - 1 / self.num_data

    # -------------------------------------------------------------------------- the rest

    def noise_scale(self, learning_rate):
        """√(2ηT/N) where noise is injected, else None: the noise is that of the minibatches."""
        if not self.injects_noise:
            return None
        variance = 2.0 * learning_rate * self.step_temperature() / self.num_data
        return ops.sqrt(reduced(variance, learning_rate, self.minibatch_correction))

    def preconditioner_config(self):
        return {"structure": self.structure, **self.preconditioner.get_config()}

    def get_config(self):
        config = {**super().get_config(), **self._given}
        if self.injects_noise:
            config["minibatch_correction"] = self.minibatch_correction
        return config


def _rate(learning_rate, num_data, temperature, batch_size):
    """The learning rate; for "auto" the one at which minibatches sample at the temperature."""
    if not isinstance(learning_rate, str) or learning_rate != "auto":
        return learning_rate
    if temperature is None or batch_size is None:
        raise ValueError(
            "Learning rate and batch size set the temperature here, so one of the three follows "
            'from the others. Received: learning_rate="auto", temperature='
            f"{shorten(temperature)}, batch_size={shorten(batch_size)}. Pass two of the three; a "
            "learning rate below 2, the stability limit."
        )
    rate = 2 * temperature * batch_size / max(checked_num_data(num_data) - batch_size, 0.5)
    if rate >= 2:
        raise ValueError(
            f"Minibatches of {batch_size} sample at temperature {temperature:g} with a learning "
            f"rate of {rate:.3g}, expected below 2, the stability limit. Received: "
            f'learning_rate="auto", num_data={shorten(num_data)}. Lower `batch_size` or '
            "`temperature`."
        )
    return rate
