"""Metrics that average over minibatches, and the record of how they do."""

import dataclasses

import keras
from keras import ops

from keras_langevin.arguments import boolean, instance, integer, one_of, unit_interval
from keras_langevin.preconditioners.preconditioner import Preconditioner, must_implement


@keras.saving.register_keras_serializable(package="keras_langevin")
@dataclasses.dataclass(frozen=True)
class Averaging:
    """How a metric averages over minibatches: M ← (1 − γ_t) M + γ_t m.

    γ_t = max(floor, 1 / √(1/γ₀² + t)), where t counts the updates (Marceau-Caron and
    Ollivier's released code, plus the floor). The first minibatch sets the metric.

    Args:
        rate: γ₀ in (0, 1].
        floor: The smallest γ; equal to `rate` it makes γ constant. The default is met after a
            million steps.
        lagged: Precondition with the metric from before this minibatch, so that gradient and
            metric are independent (the default). The very first minibatch then fills the metric and
            moves nothing. The paper uses the current one, which moves the mean of the samples by a
            share of γ.
        freeze_after: When the metric is held: `"burn_in"` (the default), when the burn-in of a
            `kl.PosteriorSampler` ends; after so many updates; or None, never. A metric that follows
            the weights while they are sampled makes the samples too narrow, by up to a seventh in
            `examples/studies/reference_posteriors`, and no smaller rate mends that; a held one has
            no such bias. Where a schedule of the rate explores (`kl.schedules.CyclicalCosine`),
            burn-in holds nothing.

    Example:

    >>> averaging = kl.preconditioners.Averaging(rate=0.1, floor=0.1)
    >>> optimizer = kl.QDOPLangevin(num_data=len(x), averaging=averaging)
    """

    rate: float = 0.5
    floor: float = 0.001
    lagged: bool = True
    freeze_after: int | str | None = "burn_in"

    def __post_init__(self):
        freeze_after = self.freeze_after
        if isinstance(freeze_after, str):
            freeze_after = one_of("freeze_after", freeze_after, ("burn_in",))
        elif freeze_after is not None:
            freeze_after = integer("freeze_after", freeze_after, at_least=1)
        checked = {
            "rate": unit_interval("rate", self.rate),
            "floor": unit_interval("floor", self.floor, zero_allowed=True),
            "lagged": boolean("lagged", self.lagged),
            "freeze_after": freeze_after,
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def rate_after(self, count):
        """γ of the next update after `count` of them, a tensor; 1 of the first, 0 of a held
        metric."""
        decayed = ops.rsqrt(1.0 / self.rate**2 + count)
        rate = ops.where(count > 0, ops.maximum(decayed, max(self.floor, 1e-12)), 1.0)
        if isinstance(self.freeze_after, int):
            rate = ops.where(count >= self.freeze_after, 0.0, rate)
        return rate

    def get_config(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def get(averaging, default=None):
    """The record that `averaging` stands for: itself, its saved form, or None for the default."""
    if averaging is None:
        return Averaging() if default is None else default
    if isinstance(averaging, dict) and "class_name" in averaging:
        averaging = keras.saving.deserialize_keras_object(averaging)
    words = "a `kl.preconditioners.Averaging`, or None"
    return instance("averaging", averaging, Averaging, words)


class AveragingPreconditioner(Preconditioner):
    """A metric that is a moving average over minibatches, see `Averaging`.

    A subclass says what is averaged, by three methods of its own: `build_state`, `averages` and
    `metric`. Counting, lagging, freezing and warming up are done here.

    Args:
        averaging: A `kl.preconditioners.Averaging`; None for its defaults.
    """

    learns = True

    def __init__(self, averaging=None):
        self.averaging = get(averaging)

    def build(self, layout, add_variable):
        super().build(layout, add_variable)
        self.count = add_variable((), "metric_updates")
        self.states = self.build_state(add_variable)

    def build_state(self, add_variable):
        """The list of variables that are averaged, made by `add_variable(shape, name)`. What is
        known of the model's parameters is `self.layout`."""
        returns = "a list of the variables that are averaged"
        raise must_implement(self, "build_state(add_variable)", "every sampler", returns)

    def averages(self, gradients, statistics, rate):
        """The list of values that the states take after this minibatch: old ones kept by the
        share 1 − `rate`."""
        method, returns = "averages(gradients, statistics, rate)", "the new value of each state"
        raise must_implement(self, method, "every sampler", returns)

    def metric(self, states):
        """What `solve` and `sample` take, from the state's values."""
        returns = "what `solve` and `sample` take"
        raise must_implement(self, "metric(states)", "every sampler", returns)

    def update(self, values, gradients, statistics):
        count = ops.convert_to_tensor(self.count)
        values = self.averages(gradients, statistics, self.averaging_rate())
        is_lagged = self.averaging.lagged
        used = [ops.convert_to_tensor(old) for old in self.states] if is_lagged else values
        changes = [(self.count, count + 1), *zip(self.states, values, strict=True)]
        return self.metric(used), changes

    def averaging_rate(self):
        """γ of this step, a tensor; 0 while the metric is held."""
        rate = self.averaging.rate_after(ops.convert_to_tensor(self.count))
        return ops.where(self.resting < 0, 0.0, rate)

    def hold(self):
        if self.averaging.freeze_after == "burn_in" and self.is_filled:
            self.resting.assign(-1.0)

    def release(self):
        self.resting.assign(0.0)

    def begin_again(self):
        self.count.assign(ops.zeros(()))
        self.release()

    def is_at_rest(self):
        is_resting = super().is_at_rest()
        if not self.averaging.lagged:
            return is_resting
        return ops.logical_or(is_resting, self.count < 1)

    @property
    def is_filled(self):
        return bool(ops.convert_to_numpy(self.count) > 0)

    def current(self):
        return self.metric([ops.convert_to_tensor(s) for s in self.states])

    def get_config(self):
        return {"averaging": keras.saving.serialize_keras_object(self.averaging)}
