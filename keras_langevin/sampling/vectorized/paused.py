"""Functions that stop in the middle and go on later, one at a time."""

import contextlib
import queue
import threading

from keras_langevin.keras_internals import thread_settings, use_thread_settings
from keras_langevin.storage.random_state import random_state, set_random_state


class PausedFunction:
    """A function in a thread of its own, which runs only while `resume` waits for it.

    It begins with the random numbers of Python, NumPy and torch where they stand, and with Keras'
    settings of the thread that makes it. From its first pause on its random numbers are its own:
    between two of its stretches others draw, and it meets none of that.
    """

    _of_thread = threading.local()

    def __init__(self, function, *args):
        self._answers, self._requests = queue.SimpleQueue(), queue.SimpleQueue()
        self._random_state = None
        settings = thread_settings()
        self._thread = threading.Thread(
            target=self._run, args=(function, args, settings), daemon=True
        )
        self.request = self.result = None
        self.is_done = False
        self._thread.start()

    @classmethod
    def current(cls):
        """The one whose thread this is; None in any other thread."""
        return getattr(cls._of_thread, "function", None)

    def resume(self, answer=None):
        """Runs it until its next request, which is then in `request`, or until its end, when
        `result` has what it returned or raised.

        Args:
            answer: What `ask` gives it; an exception is raised there.
        """
        self.request = None
        with self.random_numbers():
            self._answers.put(answer)
            self.request, self.is_done = self._requests.get()

    @contextlib.contextmanager
    def random_numbers(self):
        """Inside, random numbers are drawn as if by the function."""
        before = None if self._random_state is None else random_state()
        if before is not None:
            set_random_state(self._random_state)
        try:
            yield
        finally:
            self._random_state = random_state()
            if before is not None:
                set_random_state(before)

    def ask(self, request):
        """Called in its thread: pauses until the answer is there."""
        self._requests.put((request, False))
        answer = self._answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def abandon(self):
        """Ends it where it is paused."""
        if not self.is_done:
            self.resume(Abandoned())

    def _run(self, function, args, settings):
        self._of_thread.function = self
        use_thread_settings(settings)
        answer = self._answers.get()
        try:
            if isinstance(answer, BaseException):
                raise answer
            self.result = function(*args)
        except BaseException as error:
            self.result = error
        self._requests.put((None, True))


class Abandoned(BaseException):
    """Nobody waits for the function any more."""
