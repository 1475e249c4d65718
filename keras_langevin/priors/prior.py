"""What every prior says about a variable."""

import keras

register = keras.saving.register_keras_serializable(package="keras_langevin")


class Prior:
    """What a prior must say about one variable (all its entries together).

    `log_density(value)` is a scalar, up to no constant; `score(value)` its gradient, shaped
    as the value; `precision(shape)` a representative curvature -d²log p/dθ² of one entry, a
    float that damps the metric of a preconditioner and must not depend on the value.
    """

    def log_density(self, value):
        raise NotImplementedError

    def score(self, value):
        raise NotImplementedError

    def add_score(self, value, scale, slope):
        """slope + scale · score."""
        return slope + scale * self.score(value)

    def precision(self, shape) -> float:
        raise NotImplementedError

    def for_variable(self, variable):
        """The prior of this variable; priors that depend on its shape return another one."""
        return self

    def __str__(self):
        """In words, for `kl.priors.describe`."""
        config = ", ".join(f"{name}={value}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({config})"

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
