"""What ends a command with a sentence instead of a traceback: it names the file or field, and the remedy."""


class UserError(ValueError):
    """Something only the user can put right; `exit_code` is the command's."""

    exit_code = 2


class BadConfig(UserError):
    """A config that cannot work, or a run folder of another one; said before anything is built."""


class BadManifest(UserError):
    """A table of images or readers that cannot be used as it is."""


class BadMammogram(UserError):
    """One image file that cannot be used; in a data set or a folder it is listed and passed over."""


class BadDataset(UserError):
    """A data set that cannot be made, learned from or measured."""


class NotPrepared(BadDataset):
    """The data set has not been made yet; the message is the command that makes it."""


class BadCheckpoint(UserError):
    """Weights that are absent, damaged, or do not fit; a run that cannot do what is asked of it."""


class NotComparable(UserError):
    """Runs or tables that do not speak of the same images."""


class Diverged(UserError):
    """The loss, a weight or what the network says is no longer a number.

    Attributes:
        what: what happened, where.
        field: of the config, what to lower.
    """

    def __init__(self, what: str, field: str) -> None:
        super().__init__(f"{what}; lower {field}.")
        self.what, self.field = what, field


class Stopped(UserError):
    """The run was told to stop (SIGTERM) and has saved its state."""

    exit_code = 143
