"""Freed memory is used again without the system's help, unless the environment says how memory is to be handled."""

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import resource
import numpy as np
from mammojax import heap
heap.keep()
np.ones(10**7)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(10**7)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

GIVEN_BACK = CODE.replace("before =", "heap.give_back(above=ABOVE)\nbefore =")


def _pages(code: str = CODE, **settings: str) -> int:
    """Pages that a process had to ask the system for, to make an array of 80 MB five more times."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))} | settings
    line = [sys.executable, "-c", code]
    return int(subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than GNU's has its own ways")
def test_freed_memory_is_used_again_unless_the_environment_has_settings() -> None:
    assert _pages() < 100
    assert _pages(MALLOC_ARENA_MAX="8") > 100  # whole pages of 2 MiB are few


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than GNU's has its own ways")
def test_a_large_process_gives_its_memory_back() -> None:
    assert _pages(GIVEN_BACK.replace("ABOVE", "0")) > 100
    assert _pages(GIVEN_BACK.replace("ABOVE", "10**12")) < 100
