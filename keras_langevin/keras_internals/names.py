"""What Keras keeps for a thread: the counters behind automatic names (`dense_1` after `dense`), and
what is set for all models, such as the dtype policy."""

import collections
import contextlib

from keras.src.backend.common import global_state

_COUNTERS = "object_name_uids"


@contextlib.contextmanager
def names_from_the_start():
    """Within it the first dense layer of this thread is `dense`, whatever was made before."""
    before = global_state.get_global_attribute(_COUNTERS)
    global_state.set_global_attribute(_COUNTERS, collections.defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(_COUNTERS, before)


def thread_settings():
    """Those of this thread, for `use_thread_settings` in another, whose names begin anew."""
    settings = dict(vars(global_state.GLOBAL_STATE_TRACKER))
    settings.pop(_COUNTERS, None)
    return settings


def use_thread_settings(settings):
    """Gives this thread, which has none of its own yet, the settings of another."""
    vars(global_state.GLOBAL_STATE_TRACKER).update(settings)
