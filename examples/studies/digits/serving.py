"""Loads an exported ensemble where keras_langevin cannot be imported, and predicts.

python examples/studies/digits/serving.py SAVED_MODEL INPUTS.npy PREDICTIONS.npz
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class NotInstalled:
    """Put first on `sys.meta_path`, it makes a package look as if it were not installed."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"{fullname} is not installed here", name=fullname)


def main(saved_model, inputs, outputs):
    sys.meta_path.insert(0, NotInstalled("keras_langevin"))
    import numpy as np
    import tensorflow as tf

    model = tf.saved_model.load(saved_model)
    x = tf.constant(np.load(inputs))
    uncertainty = {name: value.numpy() for name, value in model.predict_uncertainty(x).items()}
    if "keras_langevin" in sys.modules:
        raise SystemExit("keras_langevin was imported; this checks that it need not be.")
    np.savez(outputs, probabilities=model.serve(x).numpy(), **uncertainty)


if __name__ == "__main__":
    main(*sys.argv[1:])
