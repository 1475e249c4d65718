"""How many examples of a batch must QDOP measure? Quality and time for several strides.

    python -m examples.studies.mnist.statistics_stride --data-dir DIR

Trains the network of `natural_langevin.py` on the first 50,000 training images of MNIST,
batch 500, with the settings that study chose for QDOP, and validates on the last 10,000. Prints
one Markdown row per stride: ensemble NLL (mean ± standard error over seeds) and milliseconds a
step. 2 x 5 x 3 runs of about 20 seconds.
"""

import argparse

import numpy as np

from examples.studies.common import digit_images
from examples.studies.mnist.methods import METHODS
from examples.studies.mnist.natural_langevin import tuning_task
from examples.studies.mnist.training import scores, train

STRIDES = (1, 4, 8, 16, 64)
SETTINGS = {
    "qdop-cold": {"learning_rate": 5.7e-3, "temperature": 0.0659, "prior_scale": 20, "damping": 4},
    "qdop-t1": {"learning_rate": 7.7e-4, "temperature": 1.0, "prior_scale": 20, "damping": 1},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="as in natural_langevin.py")
    parser.add_argument("--strides", type=int, nargs="+", default=STRIDES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    task = tuning_task(digit_images.load("mnist", options.data_dir), batch_size=500)
    print("| method | stride | examples | NLL | ms/step |\n| --- | ---: | ---: | ---: | ---: |")
    for name, settings in SETTINGS.items():
        for stride in options.strides:
            losses, times = [], []
            for seed in range(options.seeds):
                run = train(
                    METHODS[name],
                    {**settings, "drift_clip": 3.0, "statistics_stride": stride},
                    task,
                    seed,
                    options.epochs,
                )
                losses.append(scores(run.predictions["ensemble"], task)["nll"])
                times.append(1000 * run.seconds_per_step)
            error = np.std(losses, ddof=1) / len(losses) ** 0.5 if len(losses) > 1 else 0.0
            print(
                f"| {name} | {stride} | {-(-500 // stride)} | {np.mean(losses):.4f} ± {error:.4f} "
                f"| {np.median(times):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
