"""What stands as `layer.call` where probes measure: the layer's own call behind the gates of all
models that measure it, since layers may be shared between models."""

import contextlib
import functools
import inspect

import keras


class ProbedCall:
    """Stands as `layer.call`, in the layer's own dictionary.

    Args:
        layer: The layer, whose call is the one it has now.
    """

    def __init__(self, layer):
        self.layer, self.probes = layer, []
        self.put()

    def put(self):
        """Stands in front of the call that the layer has now."""
        self.own = self.layer.__dict__.get("call")  # where somebody else has put one there
        self.plain_call = self.layer.call
        self.first_argument = next(iter(inspect.signature(self.plain_call).parameters))
        self.layer.__dict__["call"] = self

    def __call__(self, *args, **kwargs):
        inputs = args[0] if args else kwargs[self.first_argument]
        call = self.plain_call
        if not any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten(inputs)):
            for probe in self.probes:
                call = functools.partial(_run, probe, call, inputs)
        return call(*args, **kwargs)

    def add(self, probe):
        if not any(p is probe for p in self.probes):
            self.probes.append(probe)

    def take_out(self, probe):
        """Gives the layer its own call back with the last probe."""
        self.probes = [p for p in self.probes if p is not probe]
        if not self.probes and self.layer.__dict__.get("call") is self:
            self.restore()

    def restore(self):
        """Gives the layer its own call back."""
        if self.own is None:
            del self.layer.__dict__["call"]
        else:
            self.layer.__dict__["call"] = self.own


def probed_call(layer):
    """The one that stands on the layer, made where there is none."""
    call = layer.__dict__.get("call")
    return call if isinstance(call, ProbedCall) else ProbedCall(layer)


def probes_of(layer):
    """Of all models that measure the layer."""
    call = layer.__dict__.get("call")
    return call.probes if isinstance(call, ProbedCall) else []


def take_out(layer, probe):
    """Takes a probe out of the layer's call, where it is there."""
    call = layer.__dict__.get("call")
    if isinstance(call, ProbedCall):
        call.take_out(probe)


@contextlib.contextmanager
def plain_calls(layers):
    """Inside, no probe of any model stands in the calls of these layers."""
    calls = [layer.__dict__.get("call") for layer in layers]
    calls = [call for call in calls if isinstance(call, ProbedCall)]
    for call in calls:
        call.restore()
    try:
        yield
    finally:
        for call in calls:
            if call.probes:
                call.put()


def _run(probe, call, inputs, *args, **kwargs):
    return probe.run(call, inputs, args, kwargs)
