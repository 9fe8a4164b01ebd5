"""Train and evaluate one experiment: python launch.py --config configs/quickstart.py [--workdir DIR]"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "The run folder; runs/<config's name> where not given.")


def main(argv: list[str]) -> int:
    """Run one experiment; exit code 0, 2 for a command or config that cannot work, 143 after SIGTERM."""
    try:
        rest = flags.FLAGS(argv, known_only=False)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError) as error:
        print(f"launch.py: {str(error).strip().splitlines()[0]}; see `python launch.py --help`.", file=sys.stderr)
        return 2
    if rest or CONFIG.value is None:
        why = f"the argument {rest[0]} is not understood" if rest else "--config is missing"
        print(f"launch.py: {why}; try --config configs/quickstart.py", file=sys.stderr)
        return 2
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]).stem

    from mammojax import run  # after the flags: a mistyped one is told at once, not after importing JAX

    try:
        run.run(CONFIG.value, Path(WORKDIR.value or f"runs/{name}"))
    except run.Stopped as stopped:
        print(f"launch.py: {stopped}", file=sys.stderr)
        return 143
    except run.USER_ERRORS as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
