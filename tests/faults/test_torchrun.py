"""The real launcher: a lost worker is replaced, two nodes are as good as one.

Every process imports all libraries anew, which is most of the minute that this takes.
``PENUMBRA_KILLS=20`` loses a worker that often, at other steps; a run of the suite loses one.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jobs import PATIENCE_S, lines, results, tiny

pytestmark = pytest.mark.slow
SOURCE = Path(__file__).parents[2] / "src"
LAUNCH = [sys.executable, "-m", "torch.distributed.run"]
KILLS = int(os.environ.get("PENUMBRA_KILLS", "1"))

Launch = Callable[[list[str], Path], subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def launch(phantom: Path) -> Iterator[Launch]:
    """Begin a tiny run under ``torchrun``; whatever hangs is ended after the tests."""
    begun = []

    def begin(how: list[str], out: Path) -> subprocess.Popen[bytes]:
        preset = out.with_suffix(".yaml")
        preset.write_text(tiny(train__accumulate=2).yaml())
        penumbra = ["-m", "penumbra", "run", "--preset", str(preset), "--data", str(phantom)]
        job = subprocess.Popen(
            [*LAUNCH, *how, *penumbra, "--out", str(out)],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        )
        begun.append(job)
        return job

    yield begin
    for job in begun:
        job.terminate()  # it ends its workers; nothing happens to one that has ended
        job.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def calm(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("torchrun") / "calm"
    assert launch(["--standalone", "--nproc-per-node", "2"], out).wait(PATIENCE_S) == 0
    return results(out)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(
    launch: Launch, tmp_path: Path, calm: dict[str, str], kill: int
) -> None:
    out, step = tmp_path / "run", random.Random(kill).randrange(1, 9)
    job = launch(["--standalone", "--nproc-per-node", "2", "--max-restarts", "2"], out)
    until = time.monotonic() + PATIENCE_S
    while lines(out / "train" / "log.jsonl") < step:
        assert job.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(json.loads((out / ".lock").read_text())["pid"], signal.SIGKILL)
    assert job.wait(PATIENCE_S) == 0
    assert results(out) == calm


def test_two_nodes_on_loopback_equal_two_processes_on_one(
    launch: Launch, tmp_path: Path, calm: dict[str, str]
) -> None:
    out, port = tmp_path / "run", free_port()
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "x"]
    how = ["--nnodes", "2", "--nproc-per-node", "1", *meeting]
    nodes = [launch(how, out) for _ in range(2)]
    assert [node.wait(PATIENCE_S) for node in nodes] == [0, 0]
    assert results(out) == calm
