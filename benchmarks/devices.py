"""Are runs on one and on several devices the same? python -m benchmarks devices [--steps 44] [--devices 2 4]

The network of configs/quickstart.py, narrow, takes the same training steps with its batch on one device and split over
several fake ones of the CPU, in float32 and in float64 (all of it: networks, optimizer, augmentation), with BatchNorm
statistics that learn from each batch of 4 and with fixed ones. A row is the greatest difference of a probability on
images that it has not seen. What float64 removes is rounding: sums over a batch are added in another order. With
config.exact_devices they are added in one order; all processes have as many threads, on which a CPU's sums depend.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BATCH, IMAGES, RATE = 4, 16, 1e-3


def probabilities(precision: str, steps: int, learning: bool, exact: int) -> list[float]:
    """p(malignant) of IMAGES images after some steps, on all devices of this process; `exact`: config.exact_devices."""
    import jax
    import jax.numpy as jnp
    import orbax.checkpoint  # noqa: F401  (it wants the types as they are)

    if precision == "float64":  # before the networks are defined, which name it
        dtype_of = jnp.dtype
        jnp.float32 = jnp.float64
        jnp.dtype = lambda name: dtype_of("float64" if name == "float32" else name)  # type: ignore[assignment]
    from mammojax import plan, tasks
    from mammojax.configs import quickstart
    from mammojax.models.classifiers import make_apply
    from mammojax.train import mesh, stages
    from mammojax.train.state import init_variables
    from mammojax.train.step import make_step

    config = quickstart.get_config()
    config.batch, config.data.size = BATCH, (96, 64)
    config.model.update(width=4, blocks=(1, 1, 1, 1))
    stage = config.stages.stage2
    stage.fix_statistics = () if learning else (".*",)
    of_stage = stages.from_config(config.stages)[-1]
    task, facts = tasks.of("whole"), {"mean": 52.0}
    network = task.network(config.model)
    variables = init_variables(network, config.data.size, config.model.channels, 0)
    variables = jax.tree.map(lambda x: np.asarray(x, precision), variables)
    state = plan.first_state(config, variables, of_stage)
    tx, loss = stages.optimizer(of_stage, variables["params"]), task.loss(config, facts)
    step = make_step(network, tx, of_stage, loss, exact_devices=exact)
    split = jax.NamedSharding(mesh.of_config(config), jax.P("data"))
    rng = np.random.default_rng(0)
    for _ in range(steps):
        images = rng.integers(0, 65535, (BATCH, *config.data.size, 1), np.uint16)
        label = (images[:, :48].mean((1, 2, 3)) > images[:, 48:].mean((1, 2, 3))).astype(np.int32)
        state, _ = step(state, jax.device_put({"image": images, "label": label}, split), np.asarray(RATE, precision))
    final = jax.tree.map(np.asarray, {"params": state.params, "batch_stats": state.batch_stats})
    unseen = rng.integers(0, 65535, (IMAGES, *config.data.size, 1), np.uint16)
    scores = make_apply(network, facts["mean"], config.model.channels)(final, jnp.asarray(unseen))
    return np.asarray(scores, np.float64)[:, 1].tolist()


def main(arguments: Sequence[str]) -> Iterator[dict]:
    """A row for each precision, kind of statistics and number of devices."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks devices")
    parser.add_argument("--steps", type=int, default=44)
    parser.add_argument("--devices", type=int, nargs="+", default=[2, 4])
    args = parser.parse_args(arguments)
    for precision, exact in (("float32", 0), ("float64", 0), ("float32", BATCH)):
        for learning in (True, False):
            one, *several = (_of(count, precision, args.steps, learning, exact) for count in (1, *args.devices))
            for count, scores in zip(args.devices, several, strict=True):
                statistics = "fixed" if not learning else "of each part" if exact else "of each batch"
                row = {"precision": precision, "exact_devices": exact, "statistics": statistics, "devices": count}
                yield row | {"steps": args.steps, "difference": float(np.abs(scores - one).max())}


def _of(count: int, precision: str, steps: int, learning: bool, exact: int) -> np.ndarray:
    """`probabilities` of a fresh process with so many devices."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": str(int(precision == "float64")),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}", "PJRT_NPROC": str(max(BATCH, count)),
    }  # fmt: skip
    code = "import json; from benchmarks import devices; "
    code += f"print(json.dumps(devices.probabilities({precision!r}, {steps}, {learning}, {exact})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    return np.array(json.loads(done.stdout.splitlines()[-1]))
