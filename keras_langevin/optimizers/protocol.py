"""What callbacks, diagnostics and the report ask of an optimizer, in one list."""


class SamplerProtocol:
    """Every question has an honest default: `None` says "not known", and then nothing is logged,
    measured, warned of or limited by it. `kl.Sampler` inherits this; a sampler overrides what it
    can state, and nothing else.

    Facts:
        num_data, temperature, prior: The target exp(−U/T), U = num_data · mean loss − log prior.
            `None` for an optimizer that samples nothing.
        momentum: β, with which `kl.diagnostics.step_size` limits the learning rate of these
            dynamics: 0 without momentum. `None` for dynamics that those limits do not fit, which
            then have none, and no `learning_rate="auto"`.
        has_automatic_learning_rate: Whether `kl.PosteriorSampler` is to find the rate.
        on_nonfinite, nonfinite_steps, last_nonfinite_step: What becomes of steps with NaN or
            infinity, how many there were, and the number of the last.

    Events, called by `kl.PosteriorSampler`:
        prepare_fit(model): Before the first step of a `fit`.
        begin_burn_in(num_steps), end_burn_in(): For what tunes itself in between; each may be
            called again.

    Quantities, for logs and reports:
        in_words(num_steps): What was tuned during burn-in, in one line.
        noise_scale(learning_rate): Standard deviation of the injected noise of one step.
        minibatch_noise(batch_size): Noise of minibatches over the noise that T asks for.
        kinetic_energies(): For each weight array the mean of what is T in equilibrium, r² of a
            momentum r that is N(0, T). Gives `kinetic_temperature` in logs and report.
        sampler_logs(): Further numbers for the logs of `fit`, by name.
    """

    num_data = None
    temperature = None
    prior = None
    momentum = None
    has_automatic_learning_rate = False
    on_nonfinite = "raise"
    nonfinite_steps = 0
    last_nonfinite_step = 0

    def prepare_fit(self, model):
        """Gets ready for a `fit` of the model, which is built and compiled."""

    def begin_burn_in(self, num_steps=None):
        """Begins what tunes itself during burn-in, again where another burn-in ended, for a `fit`
        of so many steps; 0 or None where nobody knows."""

    def end_burn_in(self):
        """Ends what tunes itself during burn-in."""

    def in_words(self, num_steps):
        """What was tuned during burn-in, in one line, for so many steps to come; or None."""
        return None

    def noise_scale(self, learning_rate):
        """The standard deviation of the noise of one step, in the metric's own units; or None."""
        return None

    def minibatch_noise(self, batch_size):
        """Minibatch noise over the noise that the temperature asks for; or None."""
        return None

    def kinetic_energies(self):
        """The mean of r² for each weight array, as a list of numbers; or None."""
        return None

    def sampler_logs(self):
        """Quantities for the logs of `fit`, by name."""
        return {}
