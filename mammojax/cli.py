"""The commands of `mammojax`: each is a module with `add_arguments(parser)` and `main(args) -> exit code`."""

import argparse
import difflib
import importlib
import os
import sys

import mammojax
from mammojax import heap
from mammojax.errors import UserError, files_as_sentences

COMMANDS = {
    "manifest": ("data.manifest_writer", "a published data set, or your folder and labels, as a manifest"),
    "check": ("check", "look at a data set before training on it: what it holds, what is wrong with it"),
    "plan": ("proposal", "a config for your data and your device's memory, each choice with its reason"),
    "prepare": ("data.prepare", "make a data set of DICOMs ready for training"),
    "finetune": ("finetune", "a finished run learns your data, alone or cross-validated by patient"),
    "predict": ("evaluate.predict", "score mammograms with a trained run"),
    "view": ("view", "a reading room in the browser: images, heatmaps, thresholds, notes, blind readings"),
    "calibrate": ("calibrate", "probabilities and an operating point for a finished run"),
    "compare": ("evaluate.compare", "runs beside each other, their ensemble, two views, operating points"),
    "matrix": ("matrix", "several runs on several data sets: train on A, test on B"),
    "populations": ("evaluate.populations", "exam runs by breast: screening, biopsied, subgroups"),
    "readers": ("evaluate.readers", "a reader study beside exam runs: curves, hybrids, Figs. 8 and 9"),
    "localise": ("evaluate.localise", "do saliency and heatmaps light up where the lesions are?"),
    "two-step": ("evaluate.two_step", "the random-forest baseline on the patch classifier's heatmaps"),
    "figure": ("evaluate.figures", "a figure of the papers from finished runs"),
    "reproduce": ("papers.tables", "a paper's tables, its values beside those of your runs"),
    "convert": ("convert", "files of published code as ours"),
    "export": ("export", "a run as one file for other programs: StableHLO, or safetensors for torch"),
    "configs": ("configs", "the experiments of configs/, a line each; or one of them, whole"),
    "train": ("launch", "run one of them: mammojax train NAME --config.FIELD=VALUE"),
    "weights": ("known_weights", "published weights: network, licence, whether they are here"),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; exit code 0, 2 for a request that cannot work, 3 when no image could be predicted."""
    argv = sys.argv[1:] if argv is None else argv
    heap.keep()
    completing = "_ARGCOMPLETE" in os.environ  # a shell asks which words may follow
    if completing:
        argv = os.environ.get("COMP_LINE", "").split()[1:]
    parser = argparse.ArgumentParser(prog="mammojax", description="Screening mammography in JAX.")
    parser.add_argument("--version", action="version", version=f"mammojax {mammojax.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command_of = {}
    for name, (_, line) in COMMANDS.items():
        command = command_of[name] = commands.add_parser(name, help=line)
        if argv[:1] == [name]:  # imports only the command's own module; `mammojax --help` imports none
            module = importlib.import_module(f"{mammojax.__name__}.{COMMANDS[name][0]}")
            module.add_arguments(command)
    if completing:
        import argcomplete

        argcomplete.autocomplete(parser)
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0], COMMANDS, 1)
        did = f"did you mean {near[0]}?" if near else "`mammojax --help` lists them."
        print(f'mammojax: there is no command "{argv[0]}"; {did}', file=sys.stderr)
        return 2
    try:
        with files_as_sentences():
            args, unknown = parser.parse_known_args(argv)
            if unknown:
                print(f"mammojax {argv[0]}: {_unknown(unknown[0], command_of[argv[0]])}", file=sys.stderr)
                return 2
            code: int = module.main(args)
            sys.stdout.flush()
        return code
    except UserError as error:
        print(f"mammojax: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the program that reads this output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _unknown(argument: str, command: argparse.ArgumentParser) -> str:
    """What to say of an argument that a command does not take, with the option that is called nearly so."""
    near = difflib.get_close_matches(argument.partition("=")[0], command._option_string_actions, 1)
    did = f"did you mean {near[0]}?" if near else "`--help` behind the command lists what it takes."
    return f'the argument "{argument}" is not known; {did}'


if __name__ == "__main__":
    sys.exit(main())
