"""Independent jobs, run one after another, in processes of their own, or on a Ray cluster."""

import importlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from typing import Any, Literal, TypeVar

from penumbra.errors import ConfigError, PenumbraError, Stopped

On = Literal["serial", "processes", "ray"]
J = TypeVar("J")
Work = Callable[[J], None]
Ended = Iterator[tuple[J, str | None]]
"""Each job as it ends, with None when it finished, else what it last said."""


def run(jobs: Sequence[J], work: Work[J], *, on: On, workers: int) -> Ended[J]:
    """Run every job somewhere; one that fails is reported, and the others go on.

    Args:
        work: a function of a module, for it is sent to other processes; so is the job.
        workers: how many processes at a time; a Ray cluster that is already there has its own.

    Raises:
        ConfigError: Ray is asked for and not installed, or its cluster does not answer.
        Stopped: a job was asked to stop, which is the user's wish and no failure.
    """
    match on:
        case "serial":
            for job in jobs:
                yield job, _attempt(work, job)
        case "processes":
            yield from _in_processes(jobs, work, workers)
        case "ray":
            yield from _on_ray(jobs, work, workers)


def _attempt(work: Work[J], job: J) -> str | None:
    try:
        work(job)
    except Stopped:
        raise
    except PenumbraError as error:
        return str(error)
    except Exception as error:  # a job may fail in any way; it is reported
        return f"{type(error).__name__}: {error}"
    return None


def _in_processes(jobs: Sequence[J], work: Work[J], workers: int) -> Ended[J]:
    """Each job in its own process, so that one that is killed takes no other with it."""
    context = multiprocessing.get_context("spawn")
    queue = list(jobs)
    running: dict[Future[str | None], J] = {}
    pools: dict[object, ProcessPoolExecutor] = {}
    while queue or running:
        while queue and len(running) < workers:
            job = queue.pop(0)
            pool = ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent)
            future = pool.submit(_attempt, work, job)
            running[future], pools[future] = job, pool
        future = next(as_completed(running))
        job = running.pop(future)
        error = future.exception()
        pools.pop(future).shutdown()
        if isinstance(error, Stopped):
            raise error
        yield job, future.result() if error is None else f"its process ended: {error}"


def _end_with_parent() -> None:
    """A killed parent takes its processes with it: left alone, they would hold their folders."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_ray(jobs: Sequence[J], work: Work[J], workers: int) -> Ended[J]:
    """The same on a Ray cluster that sees the same folders (``RAY_ADDRESS``), or a local one."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise ConfigError('--on ray needs Ray: pip install "penumbra-imaging[ray]"') from None
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        try:
            ray.init(address=address, num_cpus=None if address else workers)
        except ConnectionError as error:
            raise ConfigError(
                f"--on ray: no cluster answers at RAY_ADDRESS={address}; start one (ray start "
                "--head), or unset RAY_ADDRESS to start one here"
            ) from error
    remote = ray.remote(max_retries=0)(_attempt)
    pending = {remote.remote(work, job): job for job in jobs}
    while pending:
        (ready,), _ = ray.wait(list(pending), num_returns=1)
        job = pending.pop(ready)
        try:
            yield job, ray.get(ready)
        except ray.exceptions.RayError as error:
            yield job, f"{type(error).__name__}: {error}"
