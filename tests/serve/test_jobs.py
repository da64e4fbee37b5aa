import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from penumbra.serve.jobs import MOST_ATTEMPTS, Queue
from penumbra.serve.worker import Worker


def wait_for(done, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.05)


def test_jobs_are_taken_in_their_order_and_only_once(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "jobs.sqlite")
    ids = [queue.add(".nii.gz").id for _ in range(8)]
    taken: list[str] = []

    def take() -> None:
        while (job := queue.claim()) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)


def test_a_job_that_was_running_when_the_server_died_runs_again(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "jobs.sqlite")
    job = queue.add(".nii.gz")
    queue.claim()
    queue.recover()
    again = queue.claim()
    assert again is not None
    assert (again.id, again.attempts) == (job.id, 2)


def test_a_job_that_kills_the_server_again_and_again_fails_with_a_reason(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "jobs.sqlite")
    job = queue.add(".nii.gz")
    for _ in range(MOST_ATTEMPTS):
        assert queue.claim() is not None
        queue.recover()
    found = queue.find(job.id)
    assert found is not None
    assert found.state == "failed"
    assert "server stopped" in found.error


def test_a_prediction_that_raises_fails_its_job_and_no_other(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "jobs.sqlite")
    bad, good = queue.add(".bad"), queue.add(".good")

    def predict(scan: Path) -> str:
        if scan.suffix == ".bad":
            raise RuntimeError("Doe^John")
        return ""

    worker = Worker(queue, tmp_path, predict)
    worker.start()
    wait_for(lambda: queue.find(good.id).state == "done")
    worker.stop()
    worker.join()
    assert queue.find(bad.id).state == "failed"
    assert "Doe" not in queue.find(bad.id).error


_VICTIM = """
import sys, time
from pathlib import Path
from penumbra.serve.jobs import Queue
from penumbra.serve.worker import Worker
folder = Path(sys.argv[1])
def predict(scan):
    (folder / "began").touch()
    time.sleep(600)
    return ""
Worker(Queue(folder / "jobs.sqlite"), folder, predict).run()
"""


def test_no_job_is_lost_when_the_server_is_killed_in_the_middle_of_one(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "jobs.sqlite")
    ids = {queue.add(".nii.gz").id for _ in range(3)}
    source = str(Path(__file__).parents[2] / "src")
    victim = subprocess.Popen(
        [sys.executable, "-c", _VICTIM, str(tmp_path)], env={**os.environ, "PYTHONPATH": source}
    )
    wait_for((tmp_path / "began").exists)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    done: list[str] = []

    def predict(scan: Path) -> str:
        done.append(scan.stem.removesuffix(".nii"))
        return ""

    worker = Worker(queue, tmp_path, predict)
    worker.start()
    wait_for(lambda: all(job.state == "done" for job in queue.jobs()))
    worker.stop()
    worker.join()
    assert set(done) == ids
    assert len(done) == 3
