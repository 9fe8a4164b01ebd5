"""From a command line with a config to a run: launch.py of a checkout, `mammojax train` of an installed package."""

import argparse
import ast
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from mammojax import configs, heap
from mammojax.errors import UserError, files_as_sentences

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "The run folder; runs/<config>,<field>=<value>… where not given.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of a run over several processes.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "The number of processes of this run.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "The number of this process, from 0.")

HELP = """\
usage: {program} --config FILE[:ROW] [--config.FIELD=VALUE ...] [--workdir DIR]

Runs one experiment; the same command goes on with a run that was stopped.

The experiments (`mammojax configs NAME` prints one with all its fields):
{experiments}

FILE:ROW        a row of its table where it has several, such as configs/whole_resnet.py:256x1,128x1
--config.FIELD  sets a field of the experiment, at any depth:
                  --config.stages.stage1.epochs=5    a number
                  --config.model.dtype=bfloat16      a word
                  --config.data.size=288x224         height x width; (288,224) is the same
                  --config.model.blocks=(2,2,2,2)    several numbers; quote them for your shell
                  --config.data.prepare=True         yes or no
--workdir       the run folder; runs/<config>,<field>=<value>... where not given
--coordinator=HOST:PORT --num_processes=N --process_id=K
                one run over N processes, on one machine or many: the same command N times, K from 0 to N-1; not needed
                where SLURM, Open MPI or Kubernetes starts them; --num_processes=1 alone: a run of its own there too
"""


def launch(argv: list[str]) -> int:
    """Run one experiment; exit code 0, 2 for a command or config that cannot work, 143 after SIGTERM, 75 if another
    process of the run was lost.

    Args:
        argv: the program's name, then --config=FILE[:ARGUMENT], --config.FIELD=VALUE …, --workdir=DIR, and the three
            flags of `processes.start`.
    """
    program = Path(argv[0]).name
    if {"--help", "-h", "--helpfull", "--helpshort"} & set(argv[1:]):
        width = max(len(name) for name in configs.names())
        lines = "\n".join(f"  configs/{name + '.py':<{width + 3}}  {configs.line(name)}" for name in configs.names())
        print(HELP.format(program=f"python {program}" if program.endswith(".py") else program, experiments=lines))
        return 0
    argv = [_sizes(argument) for argument in argv]
    if missing := _missing(argv):
        print(f"{program}: {missing}", file=sys.stderr)
        return 2
    try:
        rest = flags.FLAGS(argv, known_only=False)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError) as error:
        print(f"{program}: {_sentence(error)}; see `python launch.py --help`.", file=sys.stderr)
        return 2
    if rest or CONFIG.value is None:
        why = f"the argument {rest[0]} is not understood" if rest else "--config is missing"
        print(f"{program}: {why}; try --config configs/quickstart.py", file=sys.stderr)
        return 2
    file, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")

    heap.keep()
    from mammojax import processes  # after the flags: a mistyped flag is refused before JAX is imported

    try:
        processes.start(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code

    from mammojax import families, run_folder

    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    workdir = Path(WORKDIR.value or run_folder.default(Path(file).stem, argument, overrides))
    if CONFIG.value.get("extend", False) and not (WORKDIR.value and workdir.is_dir()):
        print(f"{program}: config.extend goes on with a run; name its folder: --workdir DIR", file=sys.stderr)
        return 2
    print(f"run folder: {workdir}", flush=True)
    try:
        with files_as_sentences(), processes.losses_as_sentences():
            families.launch(CONFIG.value, workdir)
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _sizes(argument: str) -> str:
    """An argument that sets a field called size to HEIGHTxWIDTH, with the two numbers that the field takes."""
    match = re.fullmatch(r"(--config\.(?:\w+\.)*size=)(\d+)x(\d+)", argument)
    return f"{match[1]}({match[2]},{match[3]})" if match else argument


def _missing(argv: Sequence[str]) -> str:
    """What to say of a --config file that is not there, with the one that is called nearly so; "" where it is."""
    for k, argument in enumerate(argv):
        if argument == "--config" and k + 1 < len(argv):
            argument = f"--config={argv[k + 1]}"
        if argument.startswith("--config="):
            file = argument.removeprefix("--config=").partition(":")[0]
            near = difflib.get_close_matches(Path(file).stem, configs.names(), 1)
            if not Path(file).is_file():
                did = f"did you mean configs/{near[0]}.py?" if near else "`mammojax configs` lists those there are."
                return f'there is no config file "{file}"; {did}'
    return ""


def _sentence(error: Exception) -> str:
    """The command line's error in one line."""
    text = str(error).strip()
    while text[:1] in ("'", '"') and text[-1:] == text[:1]:  # a KeyError quotes its message, perhaps twice
        text = ast.literal_eval(text)
    lines = text.splitlines()
    if isinstance(error, (KeyError, AttributeError)):
        near = re.fullmatch(r"'(\w+)' Did you mean \"(\w+)\" instead of .*", " ".join(lines))
        return "the config has no field " + (f'"{near[1]}"; did you mean "{near[2]}"?' if near else " ".join(lines))
    line = (lines[-1] if lines[0].endswith(":") else lines[0]).strip()  # a config file's own error comes last
    line = re.sub(r"invalid literal for int\(\) with base 10: '(.*)'", r'"\1" is no whole number', line)
    line = re.sub(r"could not convert string to float: '(.*)'", r'"\1" is no number', line)
    return re.sub(r"^\w+Error: ", "", line)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax train`."""
    parser.add_argument("name", help="an experiment of `mammojax configs`, with its argument: quickstart, exam:joint")
    parser.add_argument(
        "overrides", nargs=argparse.REMAINDER, metavar="--config.FIELD=VALUE", help="as of launch.py; --workdir=DIR"
    )


def main(args: argparse.Namespace) -> int:
    """Run `mammojax train`; see `launch`."""
    name, _, argument = args.name.partition(":")
    file = configs.module(name).__file__
    return launch(["mammojax train", f"--config={file}{':' * bool(argument)}{argument}", *args.overrides])
