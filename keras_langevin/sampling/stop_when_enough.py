"""Ends `fit` when more samples would no longer help."""

from __future__ import annotations

from keras_langevin import arguments
from keras_langevin.sampling.held_out import HeldOutCallback
from keras_langevin.sampling.stop_together import NOTHING, StopTogether
from keras_langevin.sampling.stopping_rule import FEWEST_EXAMPLES


class StopWhenEnough(HeldOutCallback):
    """Ends `fit` when the chain has settled and more samples would not predict better.

    Sampling longer helps less and less: what an ensemble of m samples still lacks falls as 1/m.
    This callback measures on held-out data where that is, and sets `model.stop_training` when all
    three hold:

    - R-hat of the predictions, in the median, is at most `max_r_hat`: the halves of the chain agree
      (1 when they are alike);
    - the samples are worth `min_effective_samples` independent ones or more: samples of a chain
      resemble each other;
    - a test says that, however many more samples were drawn, the log predictive density of
      held-out examples would gain less than `min_gain` nats an example.

    At the end of every epoch it adds `val_r_hat`, `val_effective_samples` and `val_gain_left`, the
    estimate of that gain in nats, to the logs, measured anew each time there are 5 % more samples;
    NaN while there are too few (4, and 16 for the gain). Put it behind the sampler and before
    `CSVLogger`. Every sample is evaluated once, and none is dropped: those stored when it stops are
    those that the sampler would have stored by then.

    Args:
        sampler: The `kl.PosteriorSampler` of the same `fit`, with all of its arguments.
        validation_data: As of `kl.EnsembleValidation`; by default that of `fit`. At least 30
            examples that are not trained on; with 750 or more the test is at its best, where
            `min_gain` is 0.01.
        min_gain: Gain in nats an example, > 0, that is worth sampling on for. 0.01 is a likelihood
            that is 1 % higher.
        alpha: Largest probability, > 0 and <= 1, of stopping while `min_gain` or more is left, for
            all of its looks together. See below for what it holds.
        max_r_hat: Largest R-hat, >= 1. `None` does not ask, for chains that are to stay in modes of
            their own.
        min_effective_samples: Fewest effective samples, >= 0: those of each chain by itself, in the
            median over predictions, added up.
        num_examples: Most validation examples to evaluate, >= 30, chosen at random.
        batch_size: As of `kl.EnsembleValidation`.
        together: A `kl.StopTogether` that several chains share; see there.

    Held in memory are the chosen examples, and of every sample the log density of each of their
    labels.

    Attributes:
        scores: `SampleScores` of the samples there are, by their positions, ascending.

    Raises:
        ValueError: If an argument is not what is said above. In `fit`: as `kl.EnsembleValidation`;
            if there are fewer than 30 examples, or no output has a likelihood.

    Example:

    ```python
    import keras, numpy as np
    import keras_langevin as kl

    x = np.random.normal(size=(300, 4)).astype("float32")
    y = (x.sum(-1) > 0).astype("int32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kl.SGLD(5e-2, num_data=200), loss)
    sampler = kl.PosteriorSampler(burn_in=10)
    enough = kl.StopWhenEnough(sampler, (x[200:], y[200:]), min_gain=0.05)
    history = model.fit(x[:200], y[:200], epochs=200, callbacks=[sampler, enough], verbose=0)
    len(sampler.samples), history.history["val_gain_left"][-1]
    ```

    The test. Of an example whose density under the m samples is p, the mean of p_s, the ensemble
    lacks about h = ½ mean_s (p_s/p − 1)² / m_eff nats of what ever more samples would give it, to
    second order, m_eff being the effective samples; at most ½ is counted. The samples do not depend
    on the held-out labels, so given them and the inputs the h of the examples are independent.
    Where they average `min_gain` = g or more, W = Π (1 + λ(g − h)) has an expectation of at most 1,
    and exceeds L/`alpha` with probability `alpha`/L at most (Markov, Ville). It looks when there
    are 16 samples, and again each time there are a quarter more, L = 16 times in a `fit` at most,
    where R-hat and effective samples, which know no labels, permit. With n < 7.5/g examples an
    example counts as n g/15 at most: that few of them would gain much more cannot be told from so
    few. What the test does not cover is where the chain has yet to go, for which R-hat and
    effective samples stand, and the luck of the chain. In chains simulated with 20 effective
    samples or more h was on average 0.8 to 1.1 of what was lacking; where all predictions rise and
    fall as one, single chains are off by half.

    References:
        The test of "what more samples add" is this package's own. Its tools: I. Waudby-Smith,
        A. Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024,
        https://arxiv.org/abs/2010.09686, section 4. The idea of stopping a chain by an e-value,
        there when sampling beats its warm start: E. Sommer, R. Schulte, S. Deubner, J. Kobialka,
        D. Rügamer, "Towards E-Value Based Stopping Rules for Bayesian Deep Ensembles", 2026,
        https://arxiv.org/abs/2604.18089 (the abstract was read). R-hat: see `kl.diagnostics.r_hat`.
    """

    def __init__(
        self,
        sampler,
        validation_data=None,
        min_gain: float = 0.01,
        alpha: float = 0.05,
        max_r_hat: float | None = 1.05,
        min_effective_samples: float = 20.0,
        num_examples: int = 1000,
        batch_size: int | None = None,
        together: StopTogether | None = None,
    ):
        super().__init__(sampler, validation_data, batch_size)
        self.min_gain = arguments.positive_number("min_gain", min_gain)
        self.alpha = arguments.unit_interval("alpha", alpha)
        if max_r_hat is not None and arguments.number("max_r_hat", max_r_hat) < 1:
            raise ValueError(f"`max_r_hat` must be None or >= 1. Received: max_r_hat={max_r_hat}.")
        self.max_r_hat = max_r_hat
        self.min_effective_samples = arguments.non_negative_number(
            "min_effective_samples", min_effective_samples
        )
        self.num_examples = arguments.integer("num_examples", num_examples, FEWEST_EXAMPLES)
        if together is not None:
            arguments.instance("together", together, StopTogether, "None or a `kl.StopTogether`")
        self.together = StopTogether() if together is None else together
        self.scores = {}

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.scores = {}
        self.together.begin(self)

    def on_train_end(self, logs=None):
        self.together.end(self)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        found = NOTHING
        if self.has_data():
            self._add_samples()
            found = self.together.look(self, epoch)
        logs["val_r_hat"] = found.r_hat
        logs["val_effective_samples"] = found.effective_samples
        logs["val_gain_left"] = found.gain_left
        if found.is_enough:
            self.model.stop_training = True
            if self.params.get("verbose"):
                print(f"\n{self._in_words(found)}")

    def age(self, position):
        """How long it has sampled by then, as a number of samples with the first thinning."""
        return (position - self._start) / self._spacing

    def _add_samples(self):
        held_out = self.together.held_out(self)
        store = self.sampler.samples
        before, self.scores = self.scores, {}
        for index, facts in enumerate(store.facts):
            position = facts["position"]
            known = before.get(position)
            self.scores[position] = known or held_out.evaluate(store[index])
        if not before and self.scores:
            self._spacing = self.sampler.thinning
            self._start = next(iter(self.scores)) - self._spacing

    def _in_words(self, found):
        several = f" in {found.num_chains} chains" if found.num_chains > 1 else ""
        return (
            f"StopWhenEnough: stops with {found.num_samples} samples{several}: R-hat "
            f"{found.r_hat:.3f}, {found.effective_samples:.0f} effective samples, about "
            f"{found.gain_left:.2g} nats an example left to gain, less than "
            f"min_gain={self.min_gain:g} by the test."
        )
