"""From an ensemble and labelled data to a report."""

import dataclasses
import functools

import numpy as np

from keras_langevin import plotting
from keras_langevin.diagnostics.ensemble_size import running_log_predictive_density
from keras_langevin.diagnostics.temperatures import (
    configurational_temperature,
    stated_kinetic_temperature,
)
from keras_langevin.keras_internals import data_in_memory, states_a_loss
from keras_langevin.predictive.label_weights import label_weights
from keras_langevin.predictive.row import Row, drawing
from keras_langevin.report import chains, quality, sampler
from keras_langevin.report.findings import findings
from keras_langevin.report.report import Report

FEWEST = 8  # draws of a chain for a temperature
MOST_DRAWS = 50  # whose gradients are taken for a temperature


def make_report(ensemble, data, out_of_distribution, training_data, batch_size, model):
    """See `BayesianEnsembleModel.report`; `data` are `(x, y, sample_weight)`."""
    x, y, sample_weight = data
    if y is None:
        x, y, sample_weight = data_in_memory(x)
    outputs = _outputs(ensemble, x, y, sample_weight, out_of_distribution, batch_size)
    sections, figures = {}, []
    for output in outputs:
        title = f"Predictions: {output.name}" if len(outputs) > 1 else "Predictions"
        sections[title] = output.rows
        figures += output.figures
    predictions = np.concatenate([output.followed() for output in outputs], axis=1)
    known = [o.log_likelihood for o in outputs if o.log_likelihood is not None]
    log_likelihood = np.concatenate(known, axis=1) if known else None
    curve = running_log_predictive_density(log_likelihood) if known else None
    sections["Chains"] = chains.rows(ensemble, predictions, curve)
    if known:
        figures += _chain_figures(ensemble, log_likelihood, curve)
    rows, more = _sampler(ensemble, model, training_data, (x, y), batch_size)
    sections["Sampler"] = rows
    figures += more
    return Report(
        title="How sure is the model, and can that be trusted?",
        about=_about(ensemble, outputs),
        sections=_prefixed(sections, outputs),
        findings=_findings(sections),
        _figures=figures,
    )


class _Output:
    """One output of the model: what its members say, and what was right.

    Attributes:
        log_likelihood: `(members, labels that count)`; None without a likelihood.
    """

    def __init__(self, name, family, members, scored, y, weights, outside):
        self.name, self.log_likelihood = name, None
        self._mean = family.moments_of(members)[0]
        options, rows = {}, []
        if scored is not None:
            log_densities = np.moveaxis(scored["log_densities"], 1, 0)
            counted = np.asarray(scored["counted"], bool)
            weights = label_weights(weights, counted.shape) * counted
            self.log_likelihood = log_densities[:, counted]
            rows = quality.likelihood(self.log_likelihood, weights[counted])
            if np.any(weights != 1):
                options["weights"] = weights
        elif weights is not None:
            options["weights"] = weights
        more, self.figures = family.report(members, y, outside, **options)
        self.rows = [*rows, *more]
        self.num_labels = counted.sum() if scored is not None else self._mean.shape[1]

    def followed(self):
        """The predictions whose path is looked at, shape `(members, quantities)`."""
        return self._mean[:, : chains.PROBE].reshape(len(self._mean), -1)


def _outputs(ensemble, x, y, sample_weight, out_of_distribution, batch_size):
    heads = ensemble.heads
    predict = functools.partial(ensemble.predict_members, batch_size=batch_size, verbose=0)
    outside = [None] * len(heads.names)
    if out_of_distribution is not None:
        outside = heads.flat(predict(out_of_distribution))
    parts = zip(
        heads.names,
        heads,
        heads.flat(predict(x)),
        ensemble.scored_labels(x, y, batch_size, verbose=0),
        heads.by_output(y),
        heads.by_output(sample_weight),
        outside,
        strict=True,
    )
    return [_Output(*part) for part in parts]


def _chain_figures(ensemble, log_likelihood, curve):
    if ensemble.num_members < 2:
        return []
    found = ensemble.split_chains(log_likelihood.mean(axis=1))

    def trace(ax):
        plotting.trace(found, ax=ax)
        ax.set_ylabel("log-likelihood per label, nats")

    figures = [
        ("Members and log predictive density", drawing(plotting.log_predictive_density, curve)),
        ("Trace of the log-likelihood", trace),
    ]
    shortest = min(map(len, found))
    if len(found) > 1 and shortest >= chains.FEW_DRAWS:
        rank = drawing(plotting.rank, found, num_bins=min(20, shortest // 4))
        figures.append(("Ranks of the log-likelihood", rank))
    return figures


def _sampler(ensemble, model, training_data, data, batch_size):
    """Rows and figures about the sampler, as far as the trained model is at hand."""
    model = model or ensemble.origin.model
    optimizer = sampler.model_optimizer(model)
    if optimizer.num_data is None:
        reason = (
            "Not measured: the ensemble does not know the model it was sampled from, with its "
            "optimizer. Make it by `sampler.ensemble()`, or pass `model=`."
        )
        return [Row("optimizer", None, "optimizer", reason)], []
    batch_size = batch_size or ensemble.origin.batch_size
    rows, figures = sampler.settings(optimizer, batch_size), []
    rows += [] if training_data is None else sampler.counts(training_data)
    rows += sampler.clipped(ensemble.origin.drift_clipped)
    where = "the training data" if training_data is not None else "the data of this report"
    x, y = training_data if training_data is not None else data
    if sampler.has_diverged(model):
        return [*rows, sampler.DIVERGED], figures
    if not states_a_loss(model):
        reason = "Not measured: the loss is known to the model's own `train_step` alone."
        return [
            *rows,
            Row("stability_limit", None, "largest stable learning rate", reason),
        ], figures
    if optimizer.momentum is not None and batch_size is not None:
        rows += sampler.limits(model, x, y, batch_size, where)
        eigenvalues = sampler.spectrum(model, x, y, batch_size)
        rate = sampler.rate_of(optimizer)
        draw = drawing(plotting.metric_spectrum, eigenvalues, learning_rate=rate)
        figures.append(("Curvature in units of the metric", draw))
    kinetic = stated_kinetic_temperature(optimizer) if optimizer.temperature > 0 else None
    if kinetic is not None:
        rows += sampler.temperatures("kinetic", kinetic)
    lengths = np.unique(ensemble.chains, return_counts=True)[1]
    if training_data is not None and optimizer.temperature > 0 and min(lengths) >= FEWEST:
        draws = sampler.evenly(ensemble, MOST_DRAWS)
        rows += sampler.temperatures(
            "configurational", configurational_temperature(model, draws, x, y)
        )
    return rows, figures


def _prefixed(sections, outputs):
    """With several outputs the names of their numbers begin with the output's."""
    if len(outputs) == 1:
        return sections
    named = dict(sections)
    for output in outputs:
        title = f"Predictions: {output.name}"
        named[title] = [
            dataclasses.replace(row, name=f"{output.name}_{row.name}") for row in sections[title]
        ]
    return named


def _about(ensemble, outputs):
    chain_count = len(np.unique(ensemble.chains))
    return (
        f"{ensemble.num_members} members of {chain_count} chain{'s' * (chain_count > 1)}, measured "
        f"on {outputs[0].num_labels:,} labels."
    )


def _findings(sections):
    """Of every output with what is common to all; the same words once."""
    common = {r.name: r.value for t in ("Chains", "Sampler") for r in sections[t]}
    found = {}
    for title, rows in sections.items():
        if title.startswith("Predictions"):
            for finding in findings({**common, **{r.name: r.value for r in rows}}):
                found[str(finding)] = finding
    return list(found.values())
