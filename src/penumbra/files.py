"""Files are written whole or not at all."""

import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from penumbra.errors import DataError, WriteError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place, fsynced, when the block succeeds.

    Raises:
        WriteError: the disk is full or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # on a file system that turned read-only
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def building(place: Path) -> Iterator[Path]:
    """A new folder beside ``place`` to fill and then to rename; what is left of it is removed.

    A lock file beside it tells ``sweep`` of other processes that this one is alive.
    """
    with ExitStack() as held:
        while True:
            descriptor, name = tempfile.mkstemp(".lock", _own(place.name), place.parent)
            lock = held.enter_context(os.fdopen(descriptor, "r+b"))
            held.callback(Path(name).unlink, missing_ok=True)
            with suppress(OSError):  # a file system without locks
                if not _try_lock(lock.fileno()):
                    continue
            if Path(name).exists():  # else a sweep came before the lock
                break
        folder = Path(name.removesuffix(".lock"))
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir()
        yield folder


def sweep(parent: Path) -> None:
    """Remove what ``building`` left in ``parent`` when its process was killed."""
    if sys.platform == "win32":  # without the locks nobody knows who is alive
        return
    for path in parent.glob(".*.lock"):
        if path.name.startswith(_own(path.name.split(".")[1])):
            continue  # closing it would end our own lock
        with suppress(OSError), path.open("r+b") as lock:
            if _try_lock(lock.fileno()):
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink()


def _own(name: str) -> str:
    return f".{name}.{os.getpid()}."


_HELD: dict[Path, int] = {}
"""Folder -> the process that locked it: a POSIX lock is a process's, and one close ends it."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process works in ``folder``; the leftovers of killed ones are removed.

    The lock is the operating system's and dies with its process, so it is never stale. Loader
    workers do not inherit it; inside, the same process may ask for it again.

    Raises:
        DataError: another process is at work there, or the folder cannot be written.
    """
    here = folder.resolve()
    if _HELD.get(here) == os.getpid():
        yield
        return
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); choose another --out"
        ) from error
    with file:
        if not _try_lock(file.fileno()):
            raise DataError(
                f"{folder}: {_holder(file)} is working there; wait for it, stop it, or choose "
                "another --out"
            )
        _sign(file)
        for part in folder.rglob(".*.part*"):
            part.unlink(missing_ok=True)
        _HELD[here] = os.getpid()
        try:
            yield
        finally:
            del _HELD[here]


def _try_lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(file: TextIO) -> None:
    try:
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
    except OSError as error:
        raise DataError(f"{file.name}: cannot be written ({error.strerror or error})") from error


def _holder(file: TextIO) -> str:
    try:
        file.seek(0)
        record = json.loads(file.read())
        return f"process {record['pid']} on {record['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def cache_folder() -> Path:
    """Where prepared scans stay between runs: ``$PENUMBRA_CACHE`` or the user's cache folder."""
    chosen = os.environ.get("PENUMBRA_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "penumbra"
