"""One posterior sample: the weights of a network and where they were drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from keras_langevin.arguments import array, boolean, integer, number, shorten


class Sample(Mapping):
    """The weights of one posterior sample: a mapping from weight name to array.

    The names and their order are those of `keras_langevin.weights.named_weights`: the
    parameters first, then the non-trainable weights (moving averages of
    `BatchNormalization`), so that a sample gives back the whole predictor.

    Args:
        weights: Mapping from weight name to an array of that weight's shape.
        step: Optimizer updates made when the sample was drawn, or `None` when not known.
        learning_rate: Learning rate of that moment (for the gradient of the mean loss).
        temperature: Temperature of the posterior, `None` for an optimizer that has none.
        chain: Number of the chain the sample belongs to.
        position: Epoch or step on the schedule of the `PosteriorSampler`, `None` without one.
        copy: Whether to copy the arrays. False is for NumPy arrays that nobody changes any more.

    Raises:
        ValueError: If there are no weights, a name is not a string, an array is not numeric,
            or one of the numbers is not what is said above.

    Example:

    ```python
    import numpy as np
    import keras_langevin as kl

    sample = kl.Sample({"dense/kernel": np.zeros((3, 2))}, step=100, temperature=1.0)
    sample["dense/kernel"].shape  # (3, 2)
    sample.step  # 100
    ```
    """

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        step: int | None = None,
        learning_rate: float | None = None,
        temperature: float | None = None,
        chain: int = 0,
        position: int | None = None,
        *,
        copy: bool = True,
    ):
        if not isinstance(weights, Mapping) or not weights:
            raise ValueError(
                "`weights` must be a mapping from weight name to array with at least one weight. "
                f"Received: weights={shorten(weights)}."
            )
        copy = boolean("copy", copy)
        self._weights = {_checked_name(n): _checked_array(n, a, copy) for n, a in weights.items()}
        self._facts = checked_facts(step, learning_rate, temperature, chain, position)

    @property
    def step(self) -> int | None:
        """Optimizer updates made when the sample was drawn."""
        return self._facts["step"]

    @property
    def learning_rate(self) -> float | None:
        """Learning rate when the sample was drawn."""
        return self._facts["learning_rate"]

    @property
    def temperature(self) -> float | None:
        """Temperature of the posterior; `None` for an optimizer that has none."""
        return self._facts["temperature"]

    @property
    def chain(self) -> int:
        """Number of the chain the sample belongs to."""
        return self._facts["chain"]

    @property
    def position(self) -> int | None:
        """Epoch or step on the schedule of the `PosteriorSampler`."""
        return self._facts["position"]

    @property
    def facts(self) -> dict[str, int | float | None]:
        """Everything but the weights: step, learning_rate, temperature, chain, position."""
        return dict(self._facts)

    def nonfinite(self) -> list[str]:
        """Names of the weights that hold a NaN or an infinity."""
        return [name for name, array in self.items() if not np.isfinite(array).all()]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    # The equality of a mapping would ask arrays for one truth value.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        facts = ", ".join(f"{key}={value}" for key, value in self._facts.items())
        return f"<Sample of {len(self)} weights, {facts}>"


def checked_facts(step, learning_rate, temperature, chain, position) -> dict:
    """Everything but the weights of a `Sample`, as plain numbers.

    Raises:
        ValueError: If one is not what `Sample` says.
    """
    return {
        "step": None if step is None else _count("step", step),
        "learning_rate": None if learning_rate is None else number("learning_rate", learning_rate),
        "temperature": None if temperature is None else number("temperature", temperature),
        "chain": _count("chain", chain),
        "position": None if position is None else _count("position", position),
    }


def _checked_name(name):
    if not isinstance(name, str):
        raise ValueError(f"Names of weights must be strings. Received: name={name!r}.")
    return name


def _checked_array(name, value, copy):
    found = array(f"weights[{name!r}]", value, "biufc")
    # Copied, since a view would follow the weights through training; and ">f4" made "<f4" on the
    # usual machine: files then hold one byte order.
    return found.astype(found.dtype.newbyteorder("="), order="K", copy=copy)


def _count(argument, value):
    return integer(argument, value, below=2**63)
