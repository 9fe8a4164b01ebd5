"""The API reference from docstrings: python docs/make_api.py writes docs/api.md; a test keeps the file up to date."""

import inspect
from pathlib import Path
from typing import Any

import mammojax

FILE = Path(__file__).with_name("api.md")
HEADER = """# The API

Made of the docstrings by `python docs/make_api.py`. Everything else in the package is how this is done, and may change.
"""


def _section(name: str, thing: Any, depth: int) -> str:
    """A heading with the signature, and the docstring as it is."""
    signature = "" if inspect.ismodule(thing) or inspect.isclass(thing) else str(inspect.signature(thing))
    head = f"{'#' * depth} `{name}`\n"
    call = f"\n```python\n{name}{signature}\n```\n" if signature else ""
    return f"{head}{call}\n```text\n{inspect.getdoc(thing)}\n```\n"


def render() -> str:
    """The whole page."""
    functions = [name for name in mammojax.__all__ if name != "networks"]
    sections = [_section(f"mammojax.{name}", getattr(mammojax, name), 2) for name in functions]
    sections.append(_section("mammojax.networks", mammojax.networks, 2))
    for name in mammojax.networks.__all__:
        sections.append(_section(f"mammojax.networks.{name}", getattr(mammojax.networks, name), 3))
    return "\n".join([HEADER, *sections])


if __name__ == "__main__":
    FILE.write_text(render())
