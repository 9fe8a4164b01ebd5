"""Memory that a program has given back stays in the process, so that its next step need not ask the system again."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of mallopt, see malloc.h
_LARGEST = 2**31 - 1


def keep() -> None:
    """Keep freed memory from now on, up to 2 GiB at the heap's end; to be called before JAX starts.

    On a CPU, XLA allocates the arrays of a step anew in each step. The GNU C library asks the system for each large one
    and gives it back, and the system clears its pages; docs/speed.md has a step's time with and without. MALLOC_… and
    GLIBC_TUNABLES of the environment win; elsewhere than on the GNU C library nothing happens.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (AttributeError elsewhere)
    except (AttributeError, OSError, TypeError):
        return
    for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_ARENA_MAX, 1)):
        library.mallopt(option, value)
