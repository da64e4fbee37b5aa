"""A queue of predictions in one SQLite file: nothing is lost when the server is killed."""

import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["queued", "running", "done", "failed"]

MOST_ATTEMPTS = 2
"""A job during which the server died twice is likelier to be the cause than the victim."""

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, suffix TEXT NOT NULL, created REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT ''
)
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One uploaded scan; its name is drawn by us, so that it says nothing of the patient."""

    id: str
    state: State
    suffix: str
    created: float
    attempts: int
    error: str


class Queue:
    """Jobs in the order of their arrival; safe to use from several threads and processes.

    Example:
        >>> import tempfile
        >>> queue = Queue(Path(tempfile.mkdtemp()) / "jobs.sqlite")
        >>> job = queue.add(".nii.gz")
        >>> queue.claim().id == job.id, queue.claim()
        (True, None)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(_TABLE)

    def add(self, suffix: str, *, id: str | None = None) -> Job:
        """Put a job at the end; its id is 128 random bits unless given."""
        job = Job(id or new_id(), "queued", suffix, time.time(), 0, "")
        with self._open() as database:
            database.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?)",
                (job.id, job.state, job.suffix, job.created, job.attempts, job.error),
            )
        return job

    def claim(self) -> Job | None:
        """Take the oldest queued job, marked as running; None when there is none."""
        with self._open() as database:
            row = database.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1 WHERE id = "
                "(SELECT id FROM jobs WHERE state = 'queued' ORDER BY created, id LIMIT 1) "
                "AND state = 'queued' RETURNING *"
            ).fetchone()
        return Job(*row) if row else None

    def finish(self, id: str, *, error: str = "") -> None:
        """Record the end of a job: done, or failed with a reason."""
        with self._open() as database:
            database.execute(
                "UPDATE jobs SET state = ?, error = ? WHERE id = ?",
                ("failed" if error else "done", error, id),
            )

    def recover(self) -> None:
        """After a start: jobs that were running wait again, or fail if they were tried enough."""
        with self._open() as database:
            database.execute(
                "UPDATE jobs SET state = 'failed', error = ? WHERE state = 'running' "
                "AND attempts >= ?",
                (f"the server stopped {MOST_ATTEMPTS} times during this job", MOST_ATTEMPTS),
            )
            database.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")

    def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        with self._open() as database:
            rows = database.execute("SELECT * FROM jobs ORDER BY created, id").fetchall()
        return [Job(*row) for row in rows]

    def find(self, id: str) -> Job | None:
        with self._open() as database:
            row = database.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
        return Job(*row) if row else None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=30)) as database, database:
            yield database


def new_id() -> str:
    """128 random bits in hexadecimal."""
    return secrets.token_hex(16)
