"""Compiled programs are kept on disk, so that the next start of a run or a prediction need not compile them again."""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import jax

LEAST = 0.2
"""Programs that take less than so many seconds to compile are not kept."""


def folder() -> Path:
    """The user's folder of compiled programs: ~/.cache/mammojax/compiled/MACHINE, or below $XDG_CACHE_HOME.

    MACHINE is a digest of the processor's features: a home folder may be shared by machines of several kinds, and a
    program that was compiled for one processor may stop another.
    """
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    machine = hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:12]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "mammojax" / "compiled" / machine


def keep() -> None:
    """Keep compiled programs in `folder` from now on.

    JAX's own settings win: JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false keeps
    nothing. Where the folder cannot be written, nothing is kept.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir or not settings.jax_enable_compilation_cache:
        return
    try:
        (place := folder()).mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home folder, or one that is read only
        return
    settings.update("jax_compilation_cache_dir", str(place))
    settings.update("jax_persistent_cache_min_compile_time_secs", LEAST)
