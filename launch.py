"""Train and evaluate one experiment: python launch.py --config configs/quickstart.py [--workdir DIR]"""

import ast
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from mammojax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "The run folder; runs/<config>,<field>=<value>… where not given.")


def _sentence(error: Exception) -> str:
    """What is wrong with the command line, in one line."""
    text = str(error).strip()
    while text[:1] in ("'", '"') and text[-1:] == text[:1]:  # a KeyError quotes its message, once or twice
        text = ast.literal_eval(text)
    lines = text.splitlines()
    if isinstance(error, (KeyError, AttributeError)):
        return f"the config has no field {' '.join(lines)}"
    return (lines[-1] if lines[0].endswith(":") else lines[0]).strip()  # a config file's own error comes last


def main(argv: list[str]) -> int:
    """Run one experiment; exit code 0, 2 for a command or config that cannot work, 143 after SIGTERM."""
    try:
        rest = flags.FLAGS(argv, known_only=False)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError) as error:
        print(f"launch.py: {_sentence(error)}; see `python launch.py --help`.", file=sys.stderr)
        return 2
    if rest or CONFIG.value is None:
        why = f"the argument {rest[0]} is not understood" if rest else "--config is missing"
        print(f"launch.py: {why}; try --config configs/quickstart.py", file=sys.stderr)
        return 2
    file, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")

    from mammojax import members, run, run_folder, sweep  # after the flags: a mistyped one is told before importing JAX

    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    workdir = Path(WORKDIR.value or run_folder.default(Path(file).stem, argument, overrides))
    if CONFIG.value.get("extend", False) and not (WORKDIR.value and workdir.is_dir()):
        print("launch.py: config.extend goes on with a run; name its folder: --workdir DIR", file=sys.stderr)
        return 2
    print(f"run folder: {workdir}", flush=True)
    try:
        act = {"patients_labelled": sweep.sweep, "members": members.members}
        next((act[field] for field in act if field in CONFIG.value), run.run)(CONFIG.value, workdir)
    except UserError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
