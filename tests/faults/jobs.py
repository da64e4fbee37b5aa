"""Jobs in processes of their own, so that they can be killed."""

import hashlib
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch.distributed as dist

from penumbra import checkpoint
from penumbra.config import Config, resolve
from penumbra.errors import PenumbraError
from penumbra.training.log import Log

PATIENCE_S = 600.0


class Job:
    """A function in a forked process: no second import of the libraries, and killable."""

    def __init__(self, work: Callable[[], object], *, said: Path) -> None:
        self.said = said
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._work(work)

    def _work(self, work: Callable[[], object]) -> None:
        code = 0
        try:
            work()
        except PenumbraError as error:
            self.said.write_text(str(error))
            code = error.exit_code
        except BaseException:
            self.said.write_text(traceback.format_exc())
            code = 99
        finally:
            os._exit(code)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def over(self) -> int | None:
        """The exit code (minus the signal's number when killed), or None while it runs."""
        pid, status, used = os.wait4(self.pid, os.WNOHANG)
        if not pid:
            return None
        self.cpu_s = used.ru_utime + used.ru_stime
        return os.waitstatus_to_exitcode(status)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        deadline = time.monotonic() + patience_s
        while (code := self.over()) is None:
            if time.monotonic() > deadline:
                self.kill()
                os.waitpid(self.pid, 0)
                pytest.fail(f"the job hung for {patience_s:.0f} s")
            time.sleep(0.01)
        return code


Start = Callable[[Callable[[], object]], Job]


def dies_after(cpu_s: float, work: Callable[[], object]) -> Callable[[], object]:
    """``work``, ended on the spot once its process has computed for so long.

    Nothing handles SIGPROF, so the kernel ends the process as ``kill -9`` does, in the middle of
    whatever it is at; and a clock that counts computing alone meets the same places on a busy
    machine.
    """

    def doomed() -> object:
        signal.setitimer(signal.ITIMER_PROF, max(cpu_s, 1e-3))
        return work()

    return doomed


def signalled_at(step: int, number: int, work: Callable[[], object]) -> Callable[[], object]:
    """``work`` that gets a signal in the middle of a step, whoever is scheduled when."""
    whole = Log.write

    def write(self: Log, at: int, scalars: Mapping[str, float]) -> None:
        whole(self, at, scalars)
        if at == step:
            os.kill(os.getpid(), number)

    def asked() -> object:
        Log.write = write  # type: ignore[method-assign]  # this process was forked for it
        return work()

    return asked


def as_rank(rank: int, world: int, meeting: Path, work: Callable[[], object]) -> None:
    """What ``torchrun`` does, without its import of everything in every process."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    work()
    dist.destroy_process_group()


def tiny(**overrides: object) -> Config:
    """The smallest run that still does everything; keys are dotted with ``__``."""
    lean = {
        "data.image_size": [32, 32],
        "data.patch": [32, 32],
        "pretrain.steps": 5,
        "pretrain.batch": 4,
        "train.steps": 10,
        "train.checkpoint_every": 2,
        "train.validate_every": 4,
        "evaluate.draws": 2,
        "evaluate.bootstrap": 100,
        "evaluate.attack_cases": 0,
        "device": "cpu",
    }
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return resolve("phantom-xray", size="tiny", overrides=lean | dotted)


def tensors_of(path: Path) -> str:
    """SHA-256 of a checkpoint's tensors and record (its header has no fixed order)."""
    tensors, record = checkpoint.read(path)
    found = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return found.hexdigest()


def results(run: Path) -> dict[str, str]:
    """Digests of everything that a finished run must give again."""
    weights = ["pretrain/encoder", "pretrain/last", "train/last", "train/best", "model/model"]
    found = {name: tensors_of(run / f"{name}.safetensors") for name in weights}
    for name in ("metrics.json", "cases.csv", "split.json"):
        found[name] = hashlib.sha256((run / name).read_bytes()).hexdigest()
    losses = [json.loads(line) for line in (run / "train" / "log.jsonl").read_text().splitlines()]
    found["losses"] = json.dumps([[line["step"], line["total"]] for line in losses])
    return found


VOLATILE = r'"?(time_s|seconds|workers|sha256)"?: ?("\w+"|[-0-9.e]+),?'
"""What two equal runs may say differently."""


def content(folder: Path) -> dict[str, str]:
    """A digest of every file that a job leaves, but for what ``VOLATILE`` names."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"):
        match path.suffix:
            case ".safetensors":
                digest = tensors_of(path)
            case ".jsonl" | ".json" | ".yaml":
                text = re.sub(VOLATILE, "", path.read_text())
                digest = hashlib.sha256(text.encode()).hexdigest()
            case ".html":  # shows durations
                digest = "whole" if path.read_text().rstrip().endswith("</html>") else "cut"
            case _:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = digest
    return found


def lines(log: Path) -> int:
    return len(log.read_bytes().splitlines()) if log.exists() else 0
