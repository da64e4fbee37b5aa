"""The loop alone, killed twenty times at random, in one process and in two."""

import random
import signal
from functools import partial
from pathlib import Path

import pytest
from jobs import Job, Start, as_rank, dies_after, lines, signalled_at, tensors_of
from toys import CPU, Points, Regression, log, schedule

from penumbra.training.loop import fit

KILLS, STEPS = 20, 60


def train(folder: Path, workers: int = 0) -> None:
    plan = schedule(steps=STEPS, checkpoint_every=3, accumulate=2, workers=workers)
    fit(Regression(grow=25), Points(), plan, folder=folder, device=CPU)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calm")
    train(folder)
    return folder


def same(folder: Path, calm: Path) -> None:
    last = "last.safetensors"
    assert tensors_of(folder / last) == tensors_of(calm / last)
    assert [e["total"] for e in log(folder)] == [e["total"] for e in log(calm)]
    assert len(log(folder)) == STEPS


@pytest.mark.parametrize("workers", [0, 2])
def test_twenty_kills_leave_no_trace(
    tmp_path: Path, calm: Path, start: Start, workers: int
) -> None:
    chance, number, hits = random.Random(workers), 0, 0
    whole = start(lambda: train(tmp_path / "timed", workers))
    assert whole.wait() == 0
    while hits < KILLS:
        folder = tmp_path / f"run-{number}"
        cpu_s = chance.uniform(0, whole.cpu_s / 4)
        code = start(dies_after(cpu_s, partial(train, folder, workers))).wait()
        assert code in (0, -signal.SIGPROF)
        hits += code != 0
        if code == 0:  # its end came before the kill: compare, and begin another
            same(folder, calm)
            number += 1
    train(folder, workers)
    same(folder, calm)


def test_two_processes_are_as_good_as_one_and_may_be_killed(
    tmp_path: Path, calm: Path, start: Start
) -> None:
    folder, chance = tmp_path / "run", random.Random(0)

    def begin(number: int, step: int) -> list[Job]:
        meeting, work = tmp_path / f"meeting-{number}", partial(train, folder)
        doomed = signalled_at(step, signal.SIGKILL, work)
        return [start(partial(as_rank, k, 2, meeting, w)) for k, w in enumerate((work, doomed))]

    for number in range(3):
        first, second = begin(number, lines(folder / "log.jsonl") + chance.randint(2, 9))
        assert second.wait() == -signal.SIGKILL
        first.kill()
        first.wait()
    assert [job.wait() for job in begin(99, STEPS + 1)] == [0, 0]
    same(folder, calm)
