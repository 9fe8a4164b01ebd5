"""Memory that a program has given back stays in the process, so that its next step need not ask the system again.

A large program's is the exception: of gigabytes in one piece, the hole that is left when they are freed is no room for
the next step once a small array lies at its start, and the process would grow to twice what a step needs.
"""

import ctypes
import os
from pathlib import Path
from typing import Any

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of mallopt, see malloc.h
_LARGEST = 2**31 - 1
_USUAL = 65536  # of _MMAP_MAX
LARGE = 4 * 2**30
"""Bytes of a process, above which freed memory goes back to the system."""


def keep() -> None:
    """Keep freed memory from now on, up to 2 GiB at the heap's end; to be called before JAX starts.

    On a CPU, XLA allocates the arrays of a step anew in each step. The GNU C library asks the system for each large one
    and gives it back, and the system clears its pages; docs/speed.md has a step's time with and without. MALLOC_… and
    GLIBC_TUNABLES of the environment win; elsewhere than on the GNU C library nothing happens.
    """
    if library := _library():
        for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_ARENA_MAX, 1)):
            library.mallopt(option, value)


def give_back(above: int = LARGE) -> None:
    """End `keep` in a process that holds more than `above` bytes; to be called after a program's first run.

    Large arrays come from the system from now on and go back to it, as without `keep`.
    """
    if (library := _library()) and _resident() > above:
        library.mallopt(_MMAP_MAX, _USUAL)
        library.malloc_trim(0)


def _library() -> Any:
    """The GNU C library; None elsewhere, and where the environment has settings for it."""
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return None
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (AttributeError elsewhere)
    except (AttributeError, OSError, TypeError):
        return None
    return library


def _resident() -> int:
    """Bytes of memory that the process holds; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
