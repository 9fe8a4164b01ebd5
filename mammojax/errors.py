"""Errors that end a command with a sentence instead of a traceback; it names the file or field, and the remedy."""


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
