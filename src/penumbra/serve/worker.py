"""One job after the other, each in a process of its own, so that a crash ends the job alone."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from penumbra.serve.jobs import Job, Queue

Predict = Callable[[Path], str]
"""Predict an uploaded scan; an empty text, or what went wrong."""


class Worker(threading.Thread):
    """Takes jobs from a queue until it is stopped."""

    def __init__(self, queue: Queue, uploads: Path, predict: Predict) -> None:
        super().__init__(name="penumbra-worker", daemon=True)
        self.queue, self.uploads, self.predict = queue, uploads, predict
        self.wake = threading.Event()
        self.stopped = False

    def run(self) -> None:
        self.queue.recover()
        for job in self.queue.jobs():  # scans that a killed server left behind
            if job.state in {"done", "failed"}:
                self._scan(job).unlink(missing_ok=True)
        while not self.stopped:
            claimed = self.queue.claim()
            if claimed is None:
                self.wake.wait(1.0)
                self.wake.clear()
                continue
            self._do(claimed)

    def stop(self) -> None:
        """End after the job in hand."""
        self.stopped = True
        self.wake.set()

    def _scan(self, job: Job) -> Path:
        return self.uploads / f"{job.id}{job.suffix}"

    def _do(self, job: Job) -> None:
        scan = self._scan(job)
        try:
            error = self.predict(scan)
        except Exception as failure:  # whatever it was, the queue must go on and say so
            error = f"{type(failure).__name__} while predicting"
        self.queue.finish(job.id, error=error)
        scan.unlink(missing_ok=True)


def predict_with(run: Path, out: Path, *, timeout_s: float = 3600) -> Predict:
    """Predict in a process of its own (``serve.child``), which dies with this one."""

    def predict(scan: Path) -> str:
        command = [sys.executable, "-m", "penumbra.serve.child", run, scan, out]
        theirs, ours = os.pipe()
        try:
            done = subprocess.run(
                [str(word) for word in command],
                stdin=theirs,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"took longer than {timeout_s:.0f} s"
        finally:
            os.close(theirs)
            os.close(ours)
        if done.returncode == 0:
            return ""
        said = [line for line in done.stderr.splitlines() if line.startswith("penumbra: ")]
        # A path may hold what the uploader typed; ids and reasons are enough.
        return said[-1].replace(str(scan.parent), "").strip() if said else "the prediction crashed"

    return predict
