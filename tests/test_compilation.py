"""Compiled programs are kept in the user's cache folder, unless JAX was told otherwise."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import jax, jax.numpy as jnp
from mammojax import compilation
compilation.LEAST = 0
compilation.keep()
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
print(events.count("/jax/compilation_cache/cache_hits"), jax.config.jax_compilation_cache_dir)
"""


def _start(home: Path, **settings: str) -> tuple[int, str]:
    """Programs that a process found in its cache, and the folder of the cache."""
    environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k and "PERSISTENT" not in k}
    environment |= {"XDG_CACHE_HOME": str(home), "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1", **settings}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    hits, _, folder = done.stdout.strip().partition(" ")
    return int(hits), folder


def test_a_second_start_compiles_nothing_again(tmp_path: Path) -> None:
    hits, folder = _start(tmp_path)
    assert hits == 0
    assert Path(folder).parent == tmp_path / "mammojax" / "compiled"
    assert _start(tmp_path)[0] > 0


def test_jaxs_own_settings_win(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    assert _start(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))[1] == str(tmp_path / "own")
    assert _start(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false") == (0, "None")
    assert not (tmp_path / "mammojax").exists()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert _start(tmp_path / "file") == (0, "None")
