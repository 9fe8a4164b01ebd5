"""The experiments of configs/, wherever the package is installed: `mammojax.configs.quickstart` and the others.

In a checkout they are beside the package, in an installed package inside it (`config_files`, see pyproject.toml); in
both cases they are submodules of this module. A file is an experiment where it has `get_config`.
"""

import argparse
import difflib
import importlib
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from mammojax.errors import BadConfig

_BESIDE = (Path(__file__).with_name("config_files"), Path(__file__).parents[1] / "configs")
__path__ = [str(folder) for folder in _BESIDE if (folder / "base.py").is_file()][:1]


def names() -> list[str]:
    """The experiments' names, such as "quickstart", sorted."""
    files = (path for folder in __path__ for path in Path(folder).glob("[a-z]*.py"))
    return sorted(path.stem for path in files if path.stem != "base")


def module(name: str) -> ModuleType:
    """The module of an experiment: its docstring describes it, `get_config` makes its config.

    Raises:
        BadConfig: no experiment has that name; the message suggests the nearest one.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        did = f"did you mean {near[0]}?" if near else f"there are {', '.join(names())}."
        raise BadConfig(f'there is no config "{name}"; {did}')
    return importlib.import_module(f"{__name__}.{name}")


def get(name: str, argument: str = "") -> ConfigDict:
    """An experiment's config; `argument` is the part behind the colon of `--config configs/NAME.py:ARGUMENT`.

    Raises:
        BadConfig: there is no such experiment, or it has no such row.

    >>> get("patch_resnet", "s1").stages.stage3.epochs
    187
    """
    make = module(name).get_config
    try:
        return make(argument) if argument else make()
    except (TypeError, ValueError) as error:
        why = f"configs/{name}.py takes no argument" if isinstance(error, TypeError) else str(error)
        raise BadConfig(f"{why}.") from None


def line(name: str) -> str:
    """The first line of an experiment's docstring."""
    return (module(name).__doc__ or "").strip().splitlines()[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax configs`."""
    parser.add_argument("name", nargs="?", help="one of them, NAME or NAME:ROW: its words and every field")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax configs`: list the experiments, or print the docstring of one and its fields."""
    if args.name:
        from mammojax import config_fields  # it imports this module

        name, _, argument = args.name.partition(":")
        print((module(name).__doc__ or "").strip())
        print(f"\nFields, from configs/{name}.py, [where the value comes from]; set one with --config.FIELD=VALUE:\n")
        for field in config_fields.fields(name, argument):
            default = "" if field.default == field.value else f" (without {argument}: {field.default!r})"
            print(f"{field.name} = {field.value!r}{default}\n    {field.meaning} [{field.source}]")
        return 0
    width = max(len(name) for name in names())
    for name in names():
        print(f"{name:<{width}}  {line(name)}")
    return 0
