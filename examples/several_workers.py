"""How do several workers of TensorFlow sample one chain? By a loop in the place of `fit`.

    python examples/several_workers.py

Keras 3 has no `fit` under `MultiWorkerMirroredStrategy`. This starts two workers on this machine;
elsewhere start one on each, with `TF_CONFIG`. Each has a folder of samples of its own, or none.
"""

import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_diabetes

import keras_langevin as kl


def work():
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else
    epochs, steps = 150, 13  # of 34 examples, for all workers together
    index, workers = strategy.cluster_resolver.task_id, strategy.num_replicas_in_sync
    x, y = load_diabetes(return_X_y=True)
    x, y = ((a - a.mean(axis=0)) / a.std(axis=0) for a in (x[:, [1, 2, 3, 8]], y[:, None]))
    keras.utils.set_random_seed(0)  # also of the optimizer's seed, in all workers
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        optimizer = kl.QDOPLangevin(0.03, num_data=len(x), prior=kl.priors.Normal(1.0))
        model.compile(optimizer, "mse", jit_compile=False)
    sampler = kl.PosteriorSampler(burn_in=30)
    callbacks = keras.callbacks.CallbackList([sampler], model=model, epochs=epochs, steps=steps)

    @tf.function
    def step(x, y):
        def on_replica(x, y):
            with tf.GradientTape() as tape:  # Keras divides the loss by the number of replicas
                loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply(gradients, model.trainable_variables)
            return loss

        return strategy.reduce("SUM", strategy.run(on_replica, args=(x, y)), axis=None)

    callbacks.on_train_begin()
    for epoch in range(epochs):
        callbacks.on_epoch_begin(epoch)
        order = np.random.default_rng(epoch).permutation(len(x)).reshape(steps, -1)
        for number, rows in enumerate(order):
            mine = (tf.constant(a[rows[index::workers]], "float32") for a in (x, y))
            logs = {"loss": float(step(*mine))}
            callbacks.on_train_batch_end(number, logs)
        callbacks.on_epoch_end(epoch, logs)
    callbacks.on_train_end()

    # "mse" is −log N(y; ŷ, 1/2) and the prior N(0, 1): the posterior is Gaussian.
    design = np.c_[x, np.ones(len(x))]
    covariance = np.linalg.inv(2 * design.T @ design + np.eye(5))
    mean, stddev = covariance @ design.T @ (2 * y[:, 0]), np.sqrt(np.diag(covariance))
    samples = [np.concatenate([a.ravel() for a in s.values()]) for s in sampler.samples]
    error, width = (np.mean(samples, axis=0) - mean) / stddev, np.std(samples, axis=0) / stddev
    print(f"worker {index}: means off by {np.abs(error).max():.3f}, widths {width.mean():.3f}")


def main():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
        cluster = {"worker": [f"127.0.0.1:{s.getsockname()[1]}" for s in (one, two)]}
    programs = []
    for index in (0, 1):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CONFIG": config}
        programs.append(subprocess.Popen([sys.executable, __file__], env=environment))
    sys.exit(max(program.wait() for program in programs))


if __name__ == "__main__":
    work() if "TF_CONFIG" in os.environ else main()
