"""Where chains begin: networks trained by Adam, each from initial weights of its own."""

import keras


def adam_weights(posterior, seed, epochs=100):
    """Weights after Adam at 0.01, the likelihood alone, batches of 32."""
    keras.utils.set_random_seed(seed)
    model = posterior.network()
    model.compile(keras.optimizers.Adam(0.01), posterior.likelihood.loss())
    model.fit(*posterior.train, batch_size=32, epochs=epochs, verbose=0)
    return model.get_weights()
