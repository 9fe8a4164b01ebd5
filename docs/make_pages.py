"""A hook of MkDocs (mkdocs.yml): the pages of the site that are made when it is built, from the code as it is."""

import argparse
import html
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from mammojax import cli, config_fields, configs

ROOT = Path(__file__).resolve().parents[1]


def commands() -> str:
    """Every command of `mammojax` with its arguments, as `mammojax COMMAND --help` prints them."""
    sections = ["# Commands\n\nWhat `mammojax COMMAND --help` prints.\n"]
    for name, (module, line) in cli.COMMANDS.items():
        parser = argparse.ArgumentParser(f"mammojax {name}", formatter_class=_Wide)
        importlib.import_module(f"mammojax.{module}").add_arguments(parser)
        text = re.sub(r"\x1b\[[0-9;]*m", "", parser.format_help())  # Python 3.14 colours it
        sections.append(f"## mammojax {name}\n\n{line[:1].upper()}{line[1:]}.\n\n```text\n{text}```\n")
    return "\n".join(sections)


class _Wide(argparse.HelpFormatter):
    """Help of one width, whatever the terminal's."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def experiments() -> str:
    """Every experiment of configs/: its docstring, and its fields with their meanings and values."""
    head = "Each is a file of `configs/`. `--config.FIELD=VALUE` sets a field on the command line, at any depth.\n"
    sections = [f"# Configs\n\n{head}"]
    for name in configs.names():
        rows = []
        for field in config_fields.fields(name):
            value = html.escape(repr(field.value)).replace("|", "&#124;")
            rows.append(f"| `{field.name}` | <code>{value}</code> | {field.meaning} | {field.source} |")
        table = "\n".join(["| field | value | meaning | source of the value |", "|---|---|---|---|", *rows])
        sections.append(f"## {name}\n\n{inspect.getdoc(configs.module(name))}\n\n{table}\n")
    return "\n".join(sections)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to those of docs/; MkDocs calls it with its list of files and its own config."""
    from mkdocs.structure.files import File

    pages = {
        "commands.md": commands(),
        "configs.md": experiments(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files
