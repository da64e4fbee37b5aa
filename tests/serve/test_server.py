"""The server as a user starts it: killed in the middle of a job, cut off in an upload."""

import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PATIENCE_S = 400
ROOT = Path(__file__).parents[2]


class Server:
    """`penumbra serve` in a process of its own; all that it says is kept in one log."""

    def __init__(self, run: Path, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.log = folder.parent / "server.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self) -> None:
        said = len(self.log.read_text()) if self.log.exists() else 0
        words = ["serve", self.run, "--out", self.folder, "--port", self.port, "--max-mib", 1]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "penumbra", *map(str, words)],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
            )
        wait(lambda: "token=" in self.log.read_text()[said:])
        (self.token,) = re.findall(r"token=(\S+)", self.log.read_text()[said:])
        wait(self.answers)

    def answers(self) -> bool:
        try:
            self.ask("/api/jobs")
        except OSError:
            return False
        return True

    def ask(self, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body)
        request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def states(self) -> list[str]:
        return [job["state"] for job in self.ask("/api/jobs")]


def wait(done) -> None:
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.1)


@pytest.fixture
def server(untrained_ct: Path, tmp_path: Path) -> Iterator[Server]:
    made = Server(untrained_ct, tmp_path / "served")
    made.start()
    yield made
    made.process.kill()
    made.process.wait()


def cut_off(server: Server) -> None:
    """Promise a body, send half of it, hang up."""
    head = (
        f"POST /api/jobs?name=x.nii HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Authorization: Bearer {server.token}\r\nContent-Length: 1000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(head.encode() + b"x" * 500)


def unpacked(path: Path) -> bytes:
    """A file's content; three letters turn up in compressed bytes by chance."""
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def test_jobs_outlive_a_killed_server_and_no_patient_is_named(
    server: Server, tmp_path: Path, write_ct
) -> None:
    hu = np.random.default_rng(0).integers(-100, 300, (24, 24, 4))
    series = write_ct(tmp_path / "Secret_series", hu)
    packed = shutil.make_archive(str(tmp_path / "Secret"), "zip", series)
    body = Path(packed).read_bytes()
    cut_off(server)
    ids = [server.ask("/api/jobs?name=Doe%5EJohn.zip", body)["id"] for _ in range(2)]
    wait(lambda: "running" in server.states())
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    server.start()
    wait(lambda: set(server.states()) <= {"done", "failed"})
    jobs = server.ask("/api/jobs")
    assert [job["id"] for job in jobs] == ids  # none lost, and none made of half an upload
    assert [(job["state"], job["error"]) for job in jobs] == [("done", "")] * 2
    assert {case["case"] for case in server.ask("/api/cases")} == set(ids)
    assert not [*(server.folder / "uploads").iterdir()]
    for path in [server.log, *server.folder.rglob("*")]:
        assert not re.search("Secret|Doe", path.name)
        assert not path.is_file() or not re.search(b"Secret|Doe", unpacked(path))
