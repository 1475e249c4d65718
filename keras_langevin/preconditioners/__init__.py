"""Metrics: each answers update(statistics), solve(gradient), sample(standard normal)."""

from keras_langevin.preconditioners.averaging import Averaging, AveragingPreconditioner
from keras_langevin.preconditioners.batch_normalization import BatchNormalization
from keras_langevin.preconditioners.dense_fisher import DenseFisher
from keras_langevin.preconditioners.diagonal import Diagonal
from keras_langevin.preconditioners.euclidean import Euclidean
from keras_langevin.preconditioners.fisher import Fisher
from keras_langevin.preconditioners.outer_product import (
    DiagonalOuterProduct,
    QuasiDiagonalOuterProduct,
)
from keras_langevin.preconditioners.preconditioner import Preconditioner
from keras_langevin.preconditioners.rmsprop import RMSProp
from keras_langevin.preconditioners.structured_fisher import DiagonalFisher, QuasiDiagonalFisher

__all__ = [
    "Averaging",
    "AveragingPreconditioner",
    "BatchNormalization",
    "DenseFisher",
    "Diagonal",
    "DiagonalFisher",
    "DiagonalOuterProduct",
    "Euclidean",
    "Fisher",
    "Preconditioner",
    "QuasiDiagonalFisher",
    "QuasiDiagonalOuterProduct",
    "RMSProp",
]
