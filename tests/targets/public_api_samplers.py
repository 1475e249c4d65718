"""Every argument of the samplers and of their metrics, with valid values."""

import keras_langevin as kl

KERAS = {
    "name": "sampler",
    "weight_decay": None,
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "ema_momentum": 0.5,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}
TARGET = {
    "learning_rate": 0.01,
    "num_data": 100.0,
    "temperature": 1.0,
    "prior": kl.priors.Normal(1.0),
    "seed": 3,
    "on_nonfinite": "raise",
    "exact_noise": True,
}
LANGEVIN = {**TARGET, "minibatch_correction": None, "drift_clip": None, **KERAS}
AVERAGE = {"averaging": kl.preconditioners.Averaging(freeze_after=10)}
OUTER_PRODUCT = {
    "prior_in_metric": True,
    "damping": 1.0,
    "epsilon": 1e-8,
    "statistics_stride": 1,
    "fisher": "empirical",
    **AVERAGE,
}
INPUTS = {"relative_epsilon": 1e-6, "epsilon": 1e-4, "prior_in_metric": True, **AVERAGE}
FISHER = {
    "fisher": "model",
    "damping": 0.1,
    "num_examples": 4,
    "output": "mean",
    "noise_stddev": "mse",
}
NATURAL = {
    **TARGET,
    **KERAS,
    **FISHER,
    "temperature": None,
    "batch_size": 10,
    "structure": "dense",
    "num_draws": 2,
}
CORRECTED = {
    "correction": "jeffreys",
    "noise": "gaussian",
    "correction_method": "finite_difference",
    "temperature": 1.0,
    "batch_size": None,
    "minibatch_correction": None,
}
MOMENTUM = {
    "momentum": 0.9,
    "friction": None,
    "scheme": "baoab",
    "preconditioner": None,
    "noise_estimate": None,
    "drift_clip": 2.0,
}
MICROCANONICAL = {
    "preconditioned": True,
    "tuner": "absolute",
    "target_energy": 1e-4,
    "decoherence_length": 1.0,
    "tuning_steps": 10,
    "variance_decay": 0.9,
    "freeze_after": 10,
}

SAMPLERS = {
    "LangevinOptimizer": {**LANGEVIN, "preconditioner": None},
    "SGLD": LANGEVIN,
    "RMSPropLangevin": {**LANGEVIN, "epsilon": 1e-8, "divergence": False, **AVERAGE},
    "DOPLangevin": {**LANGEVIN, **OUTER_PRODUCT},
    "QDOPLangevin": {**LANGEVIN, **OUTER_PRODUCT},
    "BNPLangevin": {**LANGEVIN, **INPUTS},
    "SGHMC": {**TARGET, **KERAS, **MOMENTUM},
    "SMILE": {**TARGET, **KERAS, **MICROCANONICAL},
    "NGD": NATURAL,
    "SNGD": {**NATURAL, **CORRECTED},
}
