"""Shared by the benchmarks that compare with a peer: interleaved medians, the roofline, what does not fit."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mammojax import heap

REPEATS = 5
LEAST = 0.2
"""Seconds of one measurement; short calls are repeated until it is that long."""
TOO_LARGE = "does not fit"


def medians(calls: Mapping[str, Callable[[int], object]], repeats: int = REPEATS) -> dict[str, float | str]:
    """Median seconds of one turn of each call; the calls take turns, so that other programs disturb all alike.

    Args:
        calls: name → a function of the number of turns, which returns when the device is done. Its first call may
            compile. One that runs out of the device's memory gets "does not fit".
        repeats: measurements of each.
    """
    times: dict[str, list[float]] = {}
    turns = {}
    for name, call in calls.items():
        try:
            call(1)
            started = time.perf_counter()
            call(1)
            turns[name] = int(np.clip(LEAST / (time.perf_counter() - started), 1, 100))
            times[name] = []
        except (RuntimeError, MemoryError) as error:  # XLA's and PyTorch's own are RuntimeErrors
            if not out_of_memory(error):
                raise
    heap.give_back()  # as a run does after its first step
    for _ in range(repeats):
        for name in times:
            started = time.perf_counter()
            calls[name](turns[name])
            times[name].append((time.perf_counter() - started) / turns[name])
    return {name: float(np.median(times[name])) if name in times else TOO_LARGE for name in calls}


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device's memory is too small."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "resource_exhausted" in text


def columns(seconds: Mapping[str, float | str], images: int) -> dict[str, Any]:
    """ "ours_ms", "torch_ms", their ratio (below 1: ours is faster) and our images per second, of one row."""
    ours, peer = seconds["ours"], seconds["torch"]
    row: dict[str, Any] = {
        f"{name}_ms": value if isinstance(value, str) else value * 1e3 for name, value in seconds.items()
    }
    if isinstance(ours, float):
        row["images_per_s"] = images / ours
        if isinstance(peer, float):
            row["ratio"] = ours / peer
    return row


def square(precision: str) -> jax.Array:
    """A matrix that is large enough for the device's best rate of operations, times itself."""
    side = 8192 if jax.default_backend() != "cpu" else 2048
    return jnp.ones((side, side), precision)


def peaks(precision: str) -> tuple[float, float]:
    """What the device does at best: floating point operations a second of a large matrix product, bytes a second of a
    large sum, each the best of five."""
    matrix = square(precision)
    vector = jnp.ones(2**28 if jax.default_backend() != "cpu" else 2**25, jnp.float32)
    product, add = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1)

    def best(call: Callable[[], Any]) -> float:
        call().block_until_ready()
        times = []
        for _ in range(5):
            started = time.perf_counter()
            call().block_until_ready()
            times.append(time.perf_counter() - started)
        return min(times)

    return 2 * len(matrix) ** 3 / best(lambda: product(matrix)), 2 * vector.nbytes / best(lambda: add(vector))


def roofline(lowered: jax.stages.Lowered, compiled: Any, seconds: float | str, peak: tuple[float, float]) -> dict:
    """Operations and bytes by the compiler, and the shares of what the device can do that a measured time reaches.

    "of_peak" is the share of the best rate of operations (`peaks`), "roofline" that of the longer of two times: the
    operations at their best rate, and the bytes at theirs. Operations are those of the program as it is written, bytes
    what its compiled loops read and write. What a cache keeps between two loops is counted too, so that on a CPU the
    roofline may be above 1.
    """
    flops = _cost(lowered, "flops")
    moved = _cost(compiled, "bytes accessed")
    row = {"gflop": flops / 1e9, "gbyte": moved / 1e9}
    if isinstance(seconds, float):
        row |= {"of_peak": flops / peak[0] / seconds, "roofline": max(flops / peak[0], moved / peak[1]) / seconds}
    return row


def _cost(program: Any, name: str) -> float:
    cost = program.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return float((cost or {}).get(name, float("nan")))
