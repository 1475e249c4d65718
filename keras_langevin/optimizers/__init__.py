"""One sampler a file."""

from keras_langevin.optimizers.bnp_langevin import BNPLangevin
from keras_langevin.optimizers.langevin_optimizer import LangevinOptimizer
from keras_langevin.optimizers.ngd import NGD
from keras_langevin.optimizers.outer_product_langevin import DOPLangevin, QDOPLangevin
from keras_langevin.optimizers.protocol import SamplerProtocol
from keras_langevin.optimizers.rmsprop_langevin import RMSPropLangevin
from keras_langevin.optimizers.sampler import Sampler
from keras_langevin.optimizers.sghmc import SGHMC
from keras_langevin.optimizers.sgld import SGLD
from keras_langevin.optimizers.smile import SMILE
from keras_langevin.optimizers.sngd import SNGD

__all__ = [
    "NGD",
    "SGHMC",
    "SGLD",
    "SMILE",
    "SNGD",
    "BNPLangevin",
    "DOPLangevin",
    "LangevinOptimizer",
    "QDOPLangevin",
    "RMSPropLangevin",
    "Sampler",
    "SamplerProtocol",
]
