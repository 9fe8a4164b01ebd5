"""A part of an experiment that lives outside this package, named in a config as "package.module:name"."""

import dataclasses
import importlib
from typing import Any

from mammojax.errors import BadConfig


def named(text: str) -> bool:
    """Whether a config's value names something outside this package."""
    return ":" in text and all(part.isidentifier() for part in text.replace(":", ".").split("."))


def load(text: str, field: str) -> Any:
    """Import the object that "package.module:name" names.

    Args:
        text: the value of a config's field; Python finds the module on its path, PYTHONPATH included.
        field: its name in messages, such as "config.model.trunk".

    Raises:
        BadConfig: the module or the name cannot be imported.
    """
    module, _, name = text.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise BadConfig(f'{field}: "{module}" cannot be imported ({error}); put its folder on PYTHONPATH.') from None
    except AttributeError:
        raise BadConfig(f'{field}: the module "{module}" has no "{name}"; write "package.module:name".') from None


def build(cls: type, values: dict[str, Any]) -> Any:
    """An instance of a dataclass, such as a flax module, from those of the values for which it has a field."""
    fields = {field.name for field in dataclasses.fields(cls) if field.init}
    return cls(**{name: value for name, value in values.items() if name in fields})
