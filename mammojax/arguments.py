"""Types of command-line arguments, each with an error sentence of its own."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path


def size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH as two numbers."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f'"{text}" is not a size; write HEIGHTxWIDTH, such as 1152x896')
    return int(height), int(width)


def share(text: str) -> float:
    """A number between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not a share; write a number from 0 to 1')
    return value


def count(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'"{text}" is not a number of things; write a whole number from 0 on')
    return int(text)


def memory(text: str) -> int:
    """Bytes of a text such as 24GB (10^9) or 22.5GiB (2^30)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT])(i?)B", text.strip())
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f'"{text}" is no size of a memory; write such as 24GB')
    return int(float(match[1]) * (1024 if match[3] else 1000) ** (2 + "MGT".index(match[2])))


def file(*suffixes: str) -> Callable[[str], Path]:
    """A file to write, with one of these suffixes; its folder is created."""

    def read(text: str) -> Path:
        path = Path(text)
        if path.suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(f'"{text}" must end in {" or ".join(suffixes)}')
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    return read


def folder(text: str) -> Path:
    """A folder to write into, which need not exist yet."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f'"{text}" is a file; name a folder')
    return path
