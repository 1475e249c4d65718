"""Less injected noise, by what minibatches bring themselves."""

from keras import ops

from keras_langevin.arguments import integer


def reduced(variance, learning_rate, batch_size):
    """(2ηT/N)(1 − η/2) − η²/B from the variance 2ηT/N: what has to be injected where C ≈ H⁻¹ and
    so minibatches of size B bring η²/B, and where a step of η alone widens by 1/(1 − η/2).
    Unchanged without a batch size."""
    if batch_size is None:
        return variance
    variance = variance * (1.0 - learning_rate / 2.0) - learning_rate**2 / batch_size
    return ops.maximum(variance, 0.0)


def checked_correction(batch_size, learning_rate, num_data, temperature):
    """The batch size, if its minibatches alone do not exceed the noise asked for."""
    if batch_size is None:
        return None
    batch_size = integer("minibatch_correction", batch_size, at_least=1)
    limit = 2 * temperature * batch_size / (num_data + temperature * batch_size)
    is_number = not callable(learning_rate) and not isinstance(learning_rate, str)
    if is_number and learning_rate > limit:
        raise ValueError(
            "With this `minibatch_correction` the noise of the minibatches alone exceeds what the "
            f"temperature asks for: expected learning_rate <= {limit:.3g}. Received: "
            f"learning_rate={learning_rate}, minibatch_correction={batch_size}, "
            f"num_data={num_data}, temperature={temperature}. Lower the learning rate, enlarge "
            "the batch, or leave `minibatch_correction` out."
        )
    return batch_size
