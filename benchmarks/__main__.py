"""python -m benchmarks NAME [--json FILE] …: runs benchmarks/NAME.py, or the file of which NAME is a part."""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

from mammojax import heap

PARTS = {
    "patch_train": "training", "whole_train": "training", "exam_train": "training", "inference": "scoring",
    "heatmap": "scoring",
}  # fmt: skip
"""Names that share a file, which gets the name as its first argument."""
NAMES = sorted({p.stem for p in Path(__file__).parent.glob("[a-z]*.py")} - set(PARTS.values()) | set(PARTS))
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "grain", "torch")


def main() -> int:
    """Run one benchmark; its rows, the device and the versions go to the console, and as JSON to --json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args, rest = parser.parse_known_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer needs memory of the device too
    heap.keep()  # as our commands do; the peer has it too
    name = args.name
    module = importlib.import_module(f"benchmarks.{PARTS.get(name, name)}")
    import jax

    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}, {platform.machine()}, {os.cpu_count()} CPU cores"
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    print(f"device: {device}\nversions: {', '.join(f'{k} {v}' for k, v in versions.items())}", flush=True)
    rows: list[dict] = []
    for row in module.main([name, *rest] if name in PARTS else rest):
        rows.append(row)
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        if args.json:  # after each row, so that a benchmark that is stopped has written what it measured
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps({"device": device, "versions": versions, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
