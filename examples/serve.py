"""How do I serve an ensemble where this package is not installed?

    python examples/serve.py

Exports the ensemble as one SavedModel, with the scaling of the inputs inside, loads it in a process
that has TensorFlow alone, and compares: the predictions are the same. TensorFlow Serving
loads the same folder.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"  # SavedModels are TensorFlow's
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_wine

import keras_langevin as kl

SERVER = """
import sys
sys.modules["keras_langevin"] = None  # as if it were not installed
import numpy as np, tensorflow as tf
folder, inputs, outputs = sys.argv[1:]
served = tf.saved_model.load(folder)
x = np.load(inputs)
uncertainty = served.predict_uncertainty(x)
np.savez(outputs, probabilities=served.serve(x), epistemic=uncertainty["epistemic"])
"""


def trained(x, y):
    scale = keras.layers.Normalization()
    scale.adapt(x)
    model = keras.Sequential(
        [keras.Input((13,)), scale, keras.layers.Dense(20, "tanh"), keras.layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kl.SGLD(num_data=len(x)), loss)
    sampler = kl.PosteriorSampler(burn_in=20)
    model.fit(x, y, batch_size=32, epochs=70, callbacks=[sampler], verbose=0)
    return sampler.ensemble()


def main():
    keras.utils.set_random_seed(0)
    x, y = load_wine(return_X_y=True)
    x = x.astype("float32")
    ensemble = trained(x, y)
    with tempfile.TemporaryDirectory() as folder:
        model, inputs, outputs = (Path(folder) / n for n in ("model", "x.npy", "predictions.npz"))
        ensemble.export(model, verbose=False)
        np.save(inputs, x)
        subprocess.run([sys.executable, "-c", SERVER, model, inputs, outputs], check=True)
        served = dict(np.load(outputs))
        size = sum(path.stat().st_size for path in model.rglob("*"))

    difference = np.abs(served["probabilities"] - ensemble.predict(x, verbose=0)).max()
    accuracy = kl.calibration.accuracy(served["probabilities"], y)
    print(f"{ensemble.num_members} members in {size / 1000:.0f} kB, accuracy {accuracy:.1%}")
    print(f"largest difference of served and own probabilities {difference:.1e}")
    print(f"largest epistemic uncertainty {served['epistemic'].max():.3f} nats")


if __name__ == "__main__":
    main()
