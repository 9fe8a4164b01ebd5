"""python -m benchmarks NAME [--json FILE] …: runs benchmarks/NAME.py."""

import argparse
import importlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path

NAMES = sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py"))


def main() -> int:
    """Run one benchmark; its rows go to the console, and as {"device", "versions", "rows"} to --json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args, rest = parser.parse_known_args()
    rows = importlib.import_module(f"benchmarks.{args.name}").main(rest)
    for row in rows:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    if args.json:
        import jax

        device = f"{jax.device_count()} x {jax.devices()[0].device_kind}, {platform.machine()}"
        versions = {n: importlib.metadata.version(n) for n in ("jax", "jaxlib", "flax", "numpy", "grain")}
        args.json.write_text(json.dumps({"device": device, "versions": versions, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
