import os
import subprocess
import sys
import time
from pathlib import Path

from penumbra import jobs
from penumbra.errors import DataError

SOURCE = Path(__file__).parents[1] / "src"


def refuse_odd(number: int) -> None:
    if number % 2:
        raise DataError(f"{number} is odd")
    if number == 4:
        raise ZeroDivisionError("four")


def test_a_job_that_fails_is_reported_and_the_others_go_on() -> None:
    ended = dict(jobs.run([1, 2, 3, 4], refuse_odd, on="serial", workers=1))
    assert ended == {1: "1 is odd", 2: None, 3: "3 is odd", 4: "ZeroDivisionError: four"}


def test_a_process_that_is_killed_takes_no_other_job_with_it_and_ends_with_its_parent(
    tmp_path: Path,
) -> None:
    """As a program of its own, whose jobs import no more than it does."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, signal, sys, time\n"
        "from penumbra import jobs\n"
        "def work(name):\n"
        "    pathlib.Path(sys.argv[1], name).write_text(str(os.getpid()))\n"
        "    if name == 'killed':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    if name == 'endless':\n"
        "        time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    for job, said in jobs.run(sys.argv[2:], work, on='processes', workers=1):\n"
        "        print(job, said, flush=True)\n"
    )
    words = [sys.executable, str(program), str(tmp_path), "killed", "sound", "endless"]
    parent = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)}
    )
    assert parent.stdout is not None
    assert parent.stdout.readline().startswith("killed its process ended")
    assert parent.stdout.readline() == "sound None\n"
    while not (tmp_path / "endless").exists() or not (tmp_path / "endless").read_text():
        time.sleep(0.01)
    orphan = int((tmp_path / "endless").read_text())
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 300
    while Path(f"/proc/{orphan}").exists():
        assert time.monotonic() < until, "the job outlived its parent"
        time.sleep(0.01)
