"""Errors that end a command with a sentence instead of a traceback; it names the file or field, and the remedy."""

import contextlib
import difflib
import errno
from collections.abc import Iterator
from pathlib import Path

_REMEDIES = {
    errno.EACCES: "give a place that you may read and write",
    errno.EPERM: "give a place that you may read and write",
    errno.EROFS: "give a place that can be written",
    errno.ENOTDIR: "a part of the path is a file; give another path",
    errno.EEXIST: "it is a file; give another path",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ENOSPC: "free some space; the same command goes on",
    errno.EDQUOT: "free some space; the same command goes on",
}


class UserError(ValueError):
    """A mistake that only the user can correct; `exit_code` is the command's."""

    exit_code = 2


class BadConfig(UserError):
    """A config that cannot work, or a run folder of another config; raised before anything is built."""


class BadManifest(UserError):
    """A table of images or readers that cannot be used as it is."""


class BadMammogram(UserError):
    """One image file that cannot be used; in a data set or a folder it is listed and skipped."""


class BadDataset(UserError):
    """A data set that cannot be prepared, learned from or measured."""


class NotPrepared(BadDataset):
    """The data set is not prepared yet; the message has the command that prepares it."""


class BadCheckpoint(UserError):
    """Weights that are absent, damaged, or do not fit; a run that does not fit the request."""


class NotComparable(UserError):
    """Runs or tables that are not of the same images."""


class Diverged(UserError):
    """The loss, a weight or an output of the network is no longer a number.

    Attributes:
        event: what happened, and where.
        field: the config field to lower.
    """

    def __init__(self, event: str, field: str) -> None:
        super().__init__(f"{event}; lower {field}.")
        self.event, self.field = event, field


class Stopped(UserError):
    """The run was told to stop (SIGTERM) and has saved its state."""

    exit_code = 143


class ProcessLost(UserError):
    """Another process of this run has ended, so that this one cannot go on; the same command may be tried again."""

    exit_code = 75


class BadPlace(UserError):
    """A path where nothing can be written or read: a file in place of a folder, no permission, a full disk."""


def near_file(path: str | Path, remedy: str) -> str:
    """The end of a sentence about a path that does not exist: the name beside it that is nearly so, else a remedy."""
    path = Path(path)
    while not path.parent.exists():  # the first part of the path that is not there
        path = path.parent
    try:
        names = [] if path.exists() else [other.name for other in path.parent.iterdir()]
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, 1, 0.75)
    return f'did you mean "{near[0]}"?' if near else remedy


@contextlib.contextmanager
def files_as_sentences() -> Iterator[None]:
    """What the operating system refuses to do with a path that the user chose becomes BadPlace; the rest passes."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES or isinstance(error, BrokenPipeError):
            raise
        place = f'"{error.filename}": ' if error.filename else ""
        raise BadPlace(f"{place}{str(error.strerror).lower()}; {_REMEDIES[error.errno]}.") from None
