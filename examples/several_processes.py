"""How do several processes of torch sample one chain? By a loop in the place of `fit`.

    KERAS_BACKEND=torch torchrun --nproc_per_node=2 examples/several_processes.py
    KERAS_BACKEND=torch python examples/several_processes.py

Every process takes its share of each batch, `DistributedDataParallel` averages the gradients and
what is measured of layers, and all take the same step with the same noise, so that the chain is
that of one process. It is checked where the posterior is known: linear regression on the diabetes
data. The folder of samples is common to all: the first process writes, the others read.
"""

import os
import tempfile

import keras
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch.nn.parallel import DistributedDataParallel

import keras_langevin as kl

BATCH_SIZE, EPOCHS = 34, 150


def sample(model, sampler, batches, epochs):
    """What `fit` does with the callback: `batches(epoch)` is a list of this process' shares."""
    options = {"epochs": epochs, "steps": len(batches(0))}
    callbacks = keras.callbacks.CallbackList([sampler], model=model, **options)  # or more of them
    # After that: the sampler has added to the model what it measures.
    call = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    callbacks.on_train_begin()
    for epoch in range(sampler.epochs_seen, epochs):  # 0, or where a stored run goes on
        callbacks.on_epoch_begin(epoch)
        for step, (x, y) in enumerate(batches(epoch)):
            model.zero_grad()
            loss = model.compute_loss(x=x, y=y, y_pred=call(x, training=True), training=True)
            loss.backward()
            variables = model.trainable_variables
            model.optimizer.apply([v.value.grad for v in variables], variables)
            callbacks.on_train_batch_end(step, {"loss": loss.item()})
        callbacks.on_epoch_end(epoch, {"loss": loss.item()})
    callbacks.on_train_end()


def main():
    is_one_of_several = "RANK" in os.environ  # by torchrun
    rank, processes, folders = 0, 1, [tempfile.mkdtemp()]
    if is_one_of_several:
        torch.distributed.init_process_group("gloo")
        rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
        torch.distributed.broadcast_object_list(folders)  # a path on a common disk does as well
    x, y = load_diabetes(return_X_y=True)
    x, y = ((a - a.mean(axis=0)) / a.std(axis=0) for a in (x[:, [1, 2, 3, 8]], y[:, None]))
    tensors = [torch.tensor(a.astype("float32")) for a in (x, y)]

    def batches(epoch):  # in the same order everywhere
        order = np.random.default_rng(epoch).permutation(len(x)).reshape(-1, BATCH_SIZE)
        return [[a[rows[rank::processes]] for a in tensors] for rows in order]

    keras.utils.set_random_seed(0)  # also of the optimizer's seed, in all processes
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(kl.QDOPLangevin(0.03, num_data=len(x), prior=kl.priors.Normal(1.0)), "mse")
    sampler = kl.PosteriorSampler(burn_in=30, directory=folders[0])
    sample(model, sampler, batches, EPOCHS)

    # "mse" is −log N(y; ŷ, 1/2) and the prior N(0, 1): the posterior is Gaussian.
    design = np.c_[x, np.ones(len(x))]
    covariance = np.linalg.inv(2 * design.T @ design + np.eye(5))
    mean, stddev = covariance @ design.T @ (2 * y[:, 0]), np.sqrt(np.diag(covariance))
    samples = [np.concatenate([a.ravel() for a in s.values()]) for s in sampler.samples]
    error = np.max(np.abs(np.mean(samples, axis=0) - mean) / stddev)
    width = np.mean(np.std(samples, axis=0) / stddev)
    print(f"process {rank}: means off by {error:.3f} standard deviations, widths {width:.3f}")


if __name__ == "__main__":
    main()
