"""What the studies of images and of language around warm starts share."""

import keras

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# TensorFlow's own kernels are about as fast on a CPU here as XLA's, or twice as fast.
JIT = keras.backend.backend() == "jax"


def software():
    xla = "with" if JIT else "without"
    return f"keras {keras.__version__}, {keras.backend.backend()} {xla} XLA, one core, float32."


def fit_until_it_stops(model, train, validation, optimizer, budget, patience, path):
    """Trains to the lowest validation loss, whose weights go to a file; gives the history."""
    model.compile(optimizer, LOSS, jit_compile=JIT)
    stop = keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)
    history = model.fit(
        *train,
        batch_size=budget.batch_size,
        epochs=budget.epochs,
        validation_data=validation,
        callbacks=[stop],
        verbose=0,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save_weights(path)
    return {
        "train_loss": history.history["loss"],
        "validation_loss": history.history["val_loss"],
        "num_weights": model.count_params(),
        "software": software(),
    }


def load_weights(model, path):
    if not path.exists():
        raise SystemExit(f"The rows have a warm start whose weights are missing: {path}")
    model.load_weights(path)
    return model.get_weights()
