"""A metric of one's own: what it need not write, and what it is told where it must."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_langevin as kl
from keras_langevin.preconditioners import (
    Averaging,
    AveragingPreconditioner,
    Diagonal,
    Preconditioner,
    RMSProp,
)


class Halved(Preconditioner):
    """C = 1/2, the two methods that every metric has."""

    def solve(self, metric, vectors):
        return [0.5 * v for v in vectors]

    def sample(self, metric, normals):
        return [0.5**0.5 * n for n in normals]


class Learning(Halved):
    """Counts steps; of the hooks of a metric that changes it has `update` alone."""

    learns = True

    def build(self, layout, add_variable):
        super().build(layout, add_variable)
        self.count = add_variable((), "count")

    def update(self, values, gradients, statistics):
        return None, [(self.count, self.count + 1)]


class Complete(Learning):
    """With all of them, and one for `kl.SGHMC`."""

    def current(self):
        return None

    @property
    def is_filled(self):
        return bool(ops.convert_to_numpy(self.count) > 0)

    def whiten(self, metric, vectors):
        return self.sample(metric, vectors)


class Squares(Diagonal, AveragingPreconditioner):
    """The shortest that learns: a diagonal of averaged squares."""

    def build_state(self, add_variable):
        pairs = zip(self.layout.shapes, self.layout.names, strict=True)
        return [add_variable(shape, name) for shape, name in pairs]

    def averages(self, gradients, statistics, rate):
        pairs = zip(self.states, gradients, strict=True)
        return [(1 - rate) * ops.convert_to_tensor(s) + rate * g**2 for s, g in pairs]

    def metric(self, states):
        return [s + 0.1 for s in states]


X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = X[:, :1]


def compiled(optimizer):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", run_eagerly=keras.backend.backend() == "torch")
    return model


def weights(model):
    return [ops.convert_to_numpy(w) for w in model.trainable_variables]


def samplers(metric):
    yield kl.LangevinOptimizer(0.01, num_data=16, preconditioner=metric(), seed=1)
    yield kl.SGHMC(0.01, num_data=16, preconditioner=metric(), seed=1)


@pytest.mark.parametrize("metric", [Complete, Squares])
def test_a_metric_that_learns_is_warmed_up_and_moves_no_weight(metric):
    for optimizer in samplers(metric):
        model = compiled(optimizer)
        before = weights(model)
        kl.warm_up_metric(model, X, Y, batch_size=4)
        for a, b in zip(before, weights(model), strict=True):
            np.testing.assert_array_equal(a, b)
        assert optimizer.preconditioner.is_filled
        assert float(ops.convert_to_numpy(optimizer.preconditioner.count)) == 4
        assert int(ops.convert_to_numpy(optimizer.iterations)) == 0
        model.fit(X, Y, batch_size=4, verbose=0)
        assert all((a != b).all() for a, b in zip(before, weights(model), strict=True))


@pytest.mark.parametrize("metric", [Complete, Squares])
def test_the_learning_rate_of_a_metric_that_learns_may_be_automatic(metric):
    optimizer = kl.LangevinOptimizer("auto", num_data=16, preconditioner=metric(), seed=1)
    model = compiled(optimizer)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=1)])
    assert 0 < float(ops.convert_to_numpy(optimizer.learning_rate)) < 10


def test_the_step_of_a_metric_of_two_methods():
    """−η C g: half the gradient's."""
    moved = []
    for metric in (Halved(), None):
        optimizer = kl.LangevinOptimizer(
            0.1, num_data=16, temperature=0.0, prior=None, preconditioner=metric
        )
        model = compiled(optimizer)
        model.set_weights([np.ones((3, 1)), np.ones(1)])
        model.fit(X, Y, batch_size=16, verbose=0)
        moved.append([w - 1 for w in weights(model)])
    for half, whole in zip(*moved, strict=True):
        np.testing.assert_allclose(half, 0.5 * whole, rtol=1e-4, atol=1e-7)


# ------------------------------------------------------------------------ what is missing


def message(method, needed_by):
    return rf"`\w+` must implement `{method}.*, which {needed_by}.* needs?. It returns \w"


def test_a_metric_without_whiten_is_told_before_the_first_step():
    with pytest.raises(NotImplementedError, match=message(r"whiten\(metric, vectors\)", "`kl.SG")):
        kl.SGHMC(0.1, num_data=16, preconditioner=Halved())


@pytest.mark.parametrize("missing", ["solve", "sample"])
def test_a_metric_without_solve_or_sample(missing):
    present = {"solve", "sample"} - {missing}
    metric = type("Mine", (Preconditioner,), {name: getattr(Halved, name) for name in present})()
    model = compiled(kl.LangevinOptimizer(0.1, num_data=16, preconditioner=metric))
    with pytest.raises(NotImplementedError, match=f"`Mine` must implement `{missing}.*It returns"):
        model.fit(X, Y, verbose=0)


def test_a_metric_that_learns_without_current_or_is_filled():
    optimizer = kl.LangevinOptimizer("auto", num_data=16, preconditioner=Learning())
    with pytest.raises(NotImplementedError, match=message("is_filled", 'learning_rate="auto"')):
        compiled(optimizer).fit(X, Y, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=1)])
    model = compiled(kl.LangevinOptimizer(0.01, num_data=16, preconditioner=Learning()))
    kl.warm_up_metric(model, X, Y)  # which needs neither
    with pytest.raises(NotImplementedError, match=message(r"current\(\)", 'learning_rate="auto"')):
        model.optimizer.preconditioner.current()


@pytest.mark.parametrize("method", ["build_state", "averages", "metric"])
def test_an_average_that_lacks_a_method(method):
    arguments = {"build_state": 1, "averages": 3, "metric": 1}
    metric = type("Mine", (AveragingPreconditioner,), {})()
    with pytest.raises(NotImplementedError, match=rf"`Mine` must implement `{method}\(.*every sam"):
        getattr(metric, method)(*[None] * arguments[method])


@pytest.mark.parametrize(("method", "arguments"), [("at", 1), ("multiply", 2), ("log_volume", 2)])
def test_what_a_metric_of_the_weights_must_have(method, arguments):
    with pytest.raises(NotImplementedError, match=message(rf"{method}\(", "`kl.SNGD`")):
        getattr(Halved(), method)(*[None] * arguments)


def test_defaults_are_honest():
    metric = kl.preconditioners.Euclidean()
    metric.attach(None)
    metric.set_data(X)
    metric.build(None, None)
    assert metric.is_filled and metric.is_at_rest() is False and metric.current() is None
    assert metric.fisher == "empirical" and metric.statistics_stride == 1
    assert not (metric.learns or metric.correction or metric.approximates_fisher)
    assert RMSProp(divergence=True).correction


# ------------------------------------------------------------------------------ averaging


def test_one_record_says_how_a_metric_averages():
    averaging = Averaging(rate=0.2, floor=0.1, lagged=False, freeze_after=3)
    for name in ("DOPLangevin", "QDOPLangevin", "BNPLangevin", "RMSPropLangevin"):
        optimizer = getattr(kl, name)(0.1, num_data=10, averaging=averaging)
        again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        assert again.preconditioner.averaging == averaging
        assert again.get_config() == optimizer.get_config()
    rates = [
        float(ops.convert_to_numpy(averaging.rate_after(ops.cast(t, "float32")))) for t in range(5)
    ]
    assert rates == pytest.approx([1.0, (25 + 1) ** -0.5, (25 + 2) ** -0.5, 0.0, 0.0])
    assert float(ops.convert_to_numpy(averaging.rate_after(ops.cast(2.0, "float32")))) > 0.1


def test_the_divergence_term_needs_the_present_metric():
    assert RMSProp().averaging.lagged and not RMSProp(divergence=True).averaging.lagged
    assert not RMSProp(divergence=True, averaging=Averaging(lagged=False)).averaging.lagged
    with pytest.raises(ValueError, match=r"`divergence=True` needs `lagged=False`.*lagged=True"):
        RMSProp(divergence=True, averaging=Averaging())
