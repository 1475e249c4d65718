"""A store of samples with the schedule that says when the next one is due."""

import dataclasses

import keras

from keras_langevin.sampling.schedule import SamplingSchedule
from keras_langevin.storage.sample_folder import listed
from keras_langevin.storage.sample_store import SampleStore
from keras_langevin.weights import named_weights


class ScheduledStore:
    """What `kl.PosteriorSampler` stores, and when. The schedule is written beside the samples, so
    that a run that is resumed goes on with it.

    Args:
        samples: A `kl.SampleStore`, empty or that of the run to resume.
        schedule: A `SamplingSchedule`.
        chain: Number of the chain.
        max_samples: Most samples to keep, None for all.
        resume: Whether to go on with the schedule that the samples came with.
    """

    def __init__(
        self,
        samples: SampleStore,
        schedule: SamplingSchedule,
        chain: int,
        max_samples: int | None = None,
        resume: bool = False,
    ):
        self.samples, self.schedule = samples, schedule
        self.chain, self.max_samples = chain, max_samples
        if resume:
            self._take_stored_schedule()
        self._write_schedule()

    def set_burn_in(self, burn_in):
        """Sets what the schedule left open."""
        self.schedule = dataclasses.replace(self.schedule, burn_in=burn_in)
        self._write_schedule()

    def due_within(self, after, until):
        """The position of the sample that is due, None if there is none or it is stored already,
        as it is where an epoch is run once more."""
        position = self.schedule.due_within(after, until)
        last = max((facts["position"] or 0 for facts in self.samples.facts), default=0)
        return None if position is None or position <= last else position

    def append(self, sample):
        """Stores a sample; where the store is full, every other one makes room, perhaps this."""
        while self.max_samples is not None and len(self.samples) >= self.max_samples:
            self._double_thinning()
            if not self.schedule.includes(sample.position):
                return
        self.samples.append(sample)

    def check_model(self, model, optimizer):
        """Raises unless the samples are of such a model and optimizer; notes the optimizer."""
        weights = {
            name: (tuple(v.shape), keras.backend.standardize_dtype(v.dtype))
            for name, v in named_weights(model).items()
        }
        differences = self.samples.differences(weights, type(optimizer).__name__)
        if differences:
            raise ValueError(
                f"The model must be that of the samples in {self.samples!r}. Received: "
                f"{listed(differences)}. Build the model as in the first run; where only automatic "
                "names differ (`dense_1` for `dense`), call `keras.utils.clear_session()` before "
                "building it or name the layers. For another model use another sampler."
            )
        self.samples.set_optimizer(type(optimizer).__name__)

    def _double_thinning(self):
        # In cycles every other position may be one where the schedule always explores.
        doubled = self.schedule.doubled()
        if not self._kept(doubled):
            doubled = self.schedule.doubled(keeps_first=True)
        self.schedule = doubled
        self.samples.thin(self._kept(doubled), self._description())

    def _kept(self, schedule):
        positions = [facts["position"] for facts in self.samples.facts]
        return [i for i, p in enumerate(positions) if p is None or schedule.includes(p)]

    def _take_stored_schedule(self):
        stored = self.samples.schedule or {}
        if self.schedule.burn_in is None:
            self.schedule = dataclasses.replace(self.schedule, burn_in=stored.get("burn_in"))
        words = [
            f"{key}={value!r}, stored {stored.get(key)!r}"
            for key, value in self._description().items()
            if key not in ("doublings", "shift") and stored.get(key) != value
        ]
        if words:
            raise ValueError(
                f"To resume, the schedule must be that of the run in '{self.samples.directory}'. "
                f"Received: {', '.join(words)}. Pass the stored values, or choose another "
                "directory for a new run."
            )
        self.schedule = dataclasses.replace(
            self.schedule, doublings=stored.get("doublings", 0), shift=stored.get("shift", 0)
        )

    def _description(self):
        described = {**dataclasses.asdict(self.schedule), "chain": self.chain}
        return {name: value for name, value in described.items() if value is not None}

    def _write_schedule(self):
        """Also where it says the same: from here on no other process may write into the folder."""
        self.samples.set_schedule(self._description())
