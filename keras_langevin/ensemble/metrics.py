"""A model's compiled metrics, for predictions that are probabilities."""

import warnings

import keras

from keras_langevin.keras_internals import compile_argument


def metrics_of_probabilities(model, families):
    """Copies of the metrics and weighted metrics a model was compiled with.

    `from_logits` becomes False, since the ensemble gives probabilities, and where the model gave
    logits of a yes, thresholds at logit 0 become 0.5. Names and functions stay as they are.
    """
    binary_logits = any(family.output == "binary_logits" for family in families)
    return tuple(
        _copied(compile_argument(model, name), binary_logits)
        for name in ("metrics", "weighted_metrics")
    )


def _copied(metrics, binary_logits):
    if isinstance(metrics, dict):
        return {key: _copied(value, binary_logits) for key, value in metrics.items()}
    if isinstance(metrics, (list, tuple)):
        copies = [_copied(metric, binary_logits) for metric in metrics]
        return [c for c, m in zip(copies, metrics, strict=True) if c is not None or m is None]
    if not isinstance(metrics, keras.metrics.Metric):
        return metrics
    if getattr(metrics, "of_one_member", False):
        warnings.warn(
            f"The metric {metrics.name!r} scores the distribution that one network predicts, and "
            "the ensemble gives metrics only its mean; `evaluate` leaves it out. "
            "`ensemble.report(x, y)` scores the ensemble's distribution.",
            stacklevel=4,
        )
        return None
    try:
        config = metrics.get_config()
        if "from_logits" in config:
            config["from_logits"] = False
        for key in ("threshold", "thresholds") if binary_logits else ():
            if key in config:
                config[key] = _of_probability(config[key])
        return type(metrics).from_config(config)
    except Exception as error:  # whatever a config of the user's may raise
        warnings.warn(
            f"The metric {metrics.name!r} of the model cannot be copied from its config ({error}); "
            "`evaluate` leaves it out. Set metrics with `ensemble.compile(metrics=[...])`.",
            stacklevel=4,
        )
        return None


def _of_probability(threshold):
    if isinstance(threshold, (list, tuple)):
        return [_of_probability(one) for one in threshold]
    return 0.5 if threshold == 0 else threshold
