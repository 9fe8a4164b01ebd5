"""Headers are read in silence: pydicom's warnings and log lines print their values, names of patients among them."""

import contextlib
import logging
import threading
import warnings


class Silence:
    """A context in which pydicom prints and logs nothing.

    Filters and levels belong to the whole process: of several reading threads, the first sets them and the last
    restores them.
    """

    def __init__(self) -> None:
        self._lock, self._readers, self._undo = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._readers += 1
            if self._readers == 1:
                logger = logging.getLogger("pydicom")
                self._undo.callback(logger.setLevel, logger.level)
                logger.setLevel(logging.CRITICAL + 1)
                self._undo.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                self._undo.close()


silence = Silence()
