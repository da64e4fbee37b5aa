"""What can go wrong in a user's hands; every message names the file and the remedy."""


class PenumbraError(Exception):
    """Base of everything that the program reports in one line instead of a traceback."""

    exit_code = 1


class DataError(PenumbraError):
    """A file or folder is missing, unreadable or inconsistent."""


class ConfigError(PenumbraError):
    """A setting, option or combination of options is not valid."""

    exit_code = 2


class TrainingError(PenumbraError):
    """A training cannot go on: a loss is not finite, the representation collapsed."""
