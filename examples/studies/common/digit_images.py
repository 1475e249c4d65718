"""The images of the digits example: training, test, and images that are no digits.

| | digits (default) | mnist |
|---|---|---|
| digits | scikit-learn's 1,797 images of 8x8 | MNIST, 28x28 |
| training / test | 1,078 / 719, a stratified split that never changes | 60,000 / 10,000 |
| no digits | 260 pieces of two photographs | the 10,000 test images of Fashion-MNIST |
| download | none | unless a folder is given |

Pixels run from 0 to 1 everywhere.
"""

import dataclasses
import gzip
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split

SPLIT_SEED = 0  # no option: rates chosen on one training set must not be tested on another's


@dataclasses.dataclass(frozen=True)
class Images:
    """Flat float32 images `(examples, pixels)`, integer labels, and what they are in words."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    x_out: np.ndarray
    digits: str
    others: str

    @property
    def side(self):
        """Pixels along one edge of an image."""
        return round(self.x_test.shape[1] ** 0.5)


def load(dataset, data_dir=None):
    """The `Images` of `"digits"` or `"mnist"`."""
    return small_digits() if dataset == "digits" else mnist(data_dir)


def small_digits():
    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        (digits.data / 16).astype("float32"),
        digits.target,
        test_size=0.4,
        stratify=digits.target,
        random_state=SPLIT_SEED,
    )
    return Images(
        *(x_train, y_train, x_test, y_test),
        x_out=photograph_pieces(),
        digits="scikit-learn digits, 8x8",
        others="pieces of two photographs",
    )


def photograph_pieces():
    """8x8 pieces of scikit-learn's two sample photographs: grey, every pixel the mean of 4x4,
    the half with most contrast (the others are sky and blur), stretched to the range 0 to 1."""
    pieces = np.concatenate(
        [pieces_of(photo.mean(axis=-1)) for photo in load_sample_images().images]
    )
    contrast = pieces.std(axis=1)
    pieces = pieces[contrast > np.median(contrast)]
    darkest, brightest = pieces.min(axis=1, keepdims=True), pieces.max(axis=1, keepdims=True)
    return ((pieces - darkest) / (brightest - darkest)).astype("float32")


def pieces_of(photo, block=4, side=8):
    """The whole photograph, (height, width), in pieces `(pieces, side * side)`."""
    edge = block * side
    rows, columns = (length // edge for length in photo.shape)
    photo = photo[: rows * edge, : columns * edge]
    photo = photo.reshape(rows * side, block, columns * side, block).mean(axis=(1, 3))
    return photo.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side * side)


def mnist(data_dir=None):
    if data_dir is None:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
        clothes = keras.datasets.fashion_mnist.load_data()[1][0]
    else:
        x_train, y_train, x_test, y_test = read_mnist(Path(data_dir))
        clothes = read_clothes(Path(data_dir))
    return Images(
        *(flat(x_train), y_train.astype("int64"), flat(x_test), y_test.astype("int64")),
        x_out=flat(clothes),
        digits="MNIST, 28x28",
        others="Fashion-MNIST",
    )


def read_mnist(folder):
    names = ("x_train", "y_train", "x_test", "y_test")
    with np.load(existing(folder / "mnist.npz", folder / "mnist" / "mnist.npz")) as arrays:
        return [arrays[name] for name in names]


def read_clothes(folder):
    name = "t10k-images-idx3-ubyte.gz"
    path = existing(folder / "fashion_mnist" / name, folder / "fashion-mnist" / name)
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), "uint8", offset=16).reshape(-1, 28, 28)


def existing(*paths):
    for path in paths:
        if path.exists():
            return path
    wanted = " or ".join(str(path) for path in paths)
    raise SystemExit(f"Not found: {wanted}. Leave out --data-dir to download.")


def flat(images):
    return (images.reshape(len(images), -1) / 255).astype("float32")
