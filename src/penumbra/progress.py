"""One way to show that work is going on: a rich bar on a terminal, sparse lines in a log."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False, markup=False)  # a name may hold brackets
SECONDS_BETWEEN_LINES = 30.0


@runtime_checkable
class Advance(Protocol):
    """Moves a bar by one unit; ``note`` is shown beside it."""

    def __call__(self, note: str = "") -> None: ...


@contextmanager
def bar(title: str, total: int, *, done: int = 0) -> Iterator[Advance]:
    """Show a bar for ``total`` units, of which ``done`` are behind us (a resumed job)."""
    if int(os.environ.get("RANK", "0")):  # one process of a job speaks for all
        yield _silent
        return
    if not sys.stderr.isatty():
        yield _lines(title, total, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, completed=done, note="")

        def advance(note: str = "") -> None:
            progress.update(task, advance=1, note=note)

        yield advance


def _silent(note: str = "") -> None:
    pass


def _lines(title: str, total: int, done: int) -> Advance:
    begun = last = time.monotonic()
    count = done

    def advance(note: str = "") -> None:
        nonlocal count, last
        count += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or count == total:
            last = now
            left = (now - begun) / max(1, count - done) * (total - count)
            console.print(f"{title} {count}/{total} {note} ({left:.0f} s left)")

    return advance
