"""What is held back while headers are read, by however many threads."""

import logging
import threading
import warnings

import pytest

from mammojax.data.silence import silence


def test_silence_lasts_as_long_as_anybody_reads(caplog: pytest.LogCaptureFixture) -> None:
    """The first reader ends while the second goes on: what it put back would let names out."""
    started, ended = threading.Event(), threading.Event()
    level = logging.getLogger("pydicom").level

    def first() -> None:
        with silence:
            started.set()
            ended.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert started.wait(10)
    with silence:
        ended.set()
        thread.join()
        warnings.warn("SMITH^JOHN", stacklevel=1)  # an error in these tests, were it let out
        logging.getLogger("pydicom").error("SMITH^JOHN")
        logging.getLogger("pydicom.pixels.decoders.base").error("SMITH^JOHN")
    assert not caplog.records
    assert logging.getLogger("pydicom").level == level
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_an_error_passes_through_and_ends_the_silence() -> None:
    with pytest.raises(KeyError), silence:
        raise KeyError
    with pytest.raises(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)
