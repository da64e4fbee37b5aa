"""A killed study goes on with the cell that it was in, here and on a Ray cluster."""

import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from penumbra.study.forecast import forecast
from penumbra.study.job import Job
from penumbra.study.matrix import Study, begin, run_wave
from penumbra.study.rows import read_row, write_row

SOURCE = Path(__file__).parents[2] / "src"


@dataclass(frozen=True)
class Small:
    """A job that writes its row at once, or is killed where it stands."""

    name: str
    out: Path
    killed: bool = False

    @property
    def row(self) -> Path:
        return self.out / f"{self.name}.json"

    def needs(self) -> list[Job]:
        return []

    def run(self) -> None:
        if self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        write_row(self.row, {"arm": self.name, "seconds": 1.0, "pid": os.getpid()})


def test_after_kill_9_only_what_has_no_row_is_run_again(tmp_path: Path) -> None:
    jobs = [Small("a", tmp_path), Small("b", tmp_path, killed=True), Small("c", tmp_path)]

    def study() -> None:
        run_wave(jobs, on="serial", workers=1)

    process = multiprocessing.get_context("fork").Process(target=study)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["a.json"]
    first = read_row(tmp_path / "a.json")["pid"]
    assert run_wave([Small(job.name, tmp_path) for job in jobs], on="serial", workers=1) == []
    assert read_row(tmp_path / "a.json")["pid"] == first
    assert {read_row(tmp_path / f"{x}.json")["pid"] for x in "bc"} == {os.getpid()}


def test_a_dry_run_says_what_is_left_how_long_and_how_much(study: Study) -> None:
    begin(study)
    before = forecast(study)
    assert len(before.left) == before.jobs
    assert "unknown" in before.time
    assert before.disk.endswith("MB of weights")
    cell = study.cells()[0]
    write_row(cell.row, {"arm": cell.arm, "seconds": 60.0})
    after = forecast(study)
    cells = len(study.cells()) - 1
    assert after.time == f"about {cells} min for {cells} cells"
    assert len(after.left) == before.jobs - 1


def test_two_ray_workers_run_the_same_jobs(tmp_path: Path) -> None:
    """As a program of its own: Ray starts processes that outlive a test's warnings."""
    pytest.importorskip("ray")
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, time\n"
        "from penumbra import jobs\n"
        "def work(name):\n"
        "    if name == 'broken':\n"
        "        raise ValueError('broken')\n"
        "    pathlib.Path(os.environ['OUT'], name).write_text(str(os.getpid()))\n"
        "    while len(list(pathlib.Path(os.environ['OUT']).glob('?'))) < 2:\n"
        "        time.sleep(0.01)\n"
        "if __name__ == '__main__':\n"
        "    for job, said in jobs.run(['a', 'b', 'broken'], work, on='ray', workers=2):\n"
        "        print(job, said, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "OUT": str(tmp_path)}
    words = [sys.executable, str(program)]
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    said = sorted(line for line in ended.stdout.splitlines() if line[:1] in "ab")
    assert said == ["a None", "b None", "broken ValueError: broken"]
    assert (tmp_path / "a").read_text() != (tmp_path / "b").read_text()
