"""The contract of whatever the study runs: a job is done when its result lies there, whole."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from penumbra.study.rows import read_row


@runtime_checkable
class Job(Protocol):
    """One piece of work, resumed as a whole: a pre-training, a cell, or what follows from cells."""

    @property
    def name(self) -> str: ...

    @property
    def row(self) -> Path:
        """The file that says that the job is done."""
        ...

    def needs(self) -> "list[Job]":
        """The jobs whose results this one reads."""
        ...

    def run(self) -> None: ...


def is_done(job: Job) -> bool:
    """Whether a job's result is there; a row must also be as it was written.

    Raises:
        DataError: the row was changed.
    """
    if not job.row.exists():
        return False
    if job.row.suffix == ".json":
        read_row(job.row)
    return True
