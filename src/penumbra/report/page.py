"""One run folder to one self-contained page."""

from pathlib import Path

from penumbra.errors import DataError


def build(run: Path) -> Path:
    """The path of the report."""
    raise DataError(f"{run}: not a run folder")
