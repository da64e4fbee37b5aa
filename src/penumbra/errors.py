"""What can go wrong in a user's hands; every message names the file and the remedy."""


class PenumbraError(Exception):
    """Base of everything that the program reports in one line instead of a traceback."""

    exit_code = 1


class DataError(PenumbraError):
    """A file or folder is missing, unreadable or inconsistent."""


class WriteError(DataError):
    """A file cannot be written, whatever the input: the disk is full, or may only be read."""


class ConfigError(PenumbraError):
    """A setting, option or combination of options is not valid."""

    exit_code = 2


class TrainingError(PenumbraError):
    """A training cannot go on: a loss is not finite, the representation collapsed."""


class Stopped(PenumbraError):
    """A training was asked to stop before its end, and is saved: the same command continues."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def first_line(error: BaseException) -> str:
    """What any error says first, in at most 200 characters; its kind where it says nothing.

    Example:
        >>> first_line(OSError("disk full")), first_line(MemoryError())
        ('disk full', 'MemoryError')
    """
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
