"""The real launcher: a lost worker is replaced, two nodes are as good as one.

Every process imports all libraries anew, so this belongs to the long version of the suite.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jobs import lines, results, tiny

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("PENUMBRA_KILLS"), reason="set PENUMBRA_KILLS=20"),
]
SOURCE = Path(__file__).parents[2] / "src"
LAUNCH = [sys.executable, "-m", "torch.distributed.run"]


def begin(launch: list[str], data: Path, out: Path) -> subprocess.Popen[bytes]:
    preset = out.with_suffix(".yaml")
    preset.write_text(tiny(train__accumulate=2).yaml())
    penumbra = ["-m", "penumbra", "run", "--preset", str(preset), "--data", str(data)]
    return subprocess.Popen(
        [*LAUNCH, *launch, *penumbra, "--out", str(out)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def calm(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("torchrun") / "calm"
    assert begin(["--standalone", "--nproc-per-node", "2"], phantom, out).wait() == 0
    return results(out)


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(
    phantom: Path, tmp_path: Path, calm: dict[str, str]
) -> None:
    out = tmp_path / "run"
    launch = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]
    job = begin(launch, phantom, out)
    while lines(out / "train" / "log.jsonl") < 5:
        assert job.poll() is None
        time.sleep(0.01)
    os.kill(json.loads((out / ".lock").read_text())["pid"], signal.SIGKILL)
    assert job.wait() == 0
    assert results(out) == calm


def test_two_nodes_on_loopback_equal_two_processes_on_one(
    phantom: Path, tmp_path: Path, calm: dict[str, str]
) -> None:
    out, port = tmp_path / "run", free_port()
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "x"]
    launch = ["--nnodes", "2", "--nproc-per-node", "1", *meeting]
    nodes = [begin(launch, phantom, out) for _ in range(2)]
    assert [node.wait() for node in nodes] == [0, 0]
    assert results(out) == calm
