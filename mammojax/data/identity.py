"""Patients where a table does not name them: ids from DICOM headers as keyed hashes, and files with the same image."""

import contextlib
import hashlib
import hmac
import os
import secrets
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from mammojax.data.dicom import peek

KEY = ".id_key"
NOBODY = ("", "anon", "anonymous", "anonymised", "anonymized", "removed", "none", "unknown", "deidentified")
"""Values of PatientID where somebody has removed the patient."""


def id_key(folder: Path) -> bytes:
    """The key of the id hashes, created once in a folder and readable by its owner alone."""
    path = folder / KEY
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
    return path.read_bytes()


def hashed(value: str, key: bytes) -> str:
    """An id from a header as 16 hex digits, which only the key's owner can compute; "" stays ""."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:16] if value else ""


def patient_in(path: Path) -> str:
    """PatientID of a DICOM's header, "" if it is missing or a word such as ANONYMIZED; it identifies a person."""
    value = str(peek(path, "PatientID").get("PatientID") or "").strip()
    return "" if value.lower().strip("*-_. ") in NOBODY or not value.strip("0*-_. ") else value


def copies(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of different paths whose files have the same bytes. Sizes or a small part tell most files apart."""
    groups = [sorted(set(paths))]
    for telling in (_size, _part, _digest):
        parted = []
        for group in groups:
            alike: dict[object, list[Path]] = defaultdict(list)
            for path in group:
                with contextlib.suppress(OSError):  # reading its pixels raises the proper error
                    alike[telling(path)].append(path)
            parted += [same for same in alike.values() if len(same) > 1]
        groups = parted
    return groups


def _size(path: Path) -> int:
    return path.stat().st_size


def _part(path: Path) -> bytes:
    """64 KiB of a file's middle, where a mammogram has tissue."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size // 2 - 2**15))
        return file.read(2**16)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
