"""The loop alone, killed twenty times at random, in one process and in two."""

import os
import random
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from jobs import Job, Start, lines, tensors_of
from toys import CPU, Points, Regression, log, schedule

from penumbra.training.loop import fit

KILLS, STEPS = 20, 60


def train(folder: Path, workers: int = 0) -> None:
    plan = schedule(steps=STEPS, checkpoint_every=3, accumulate=2, workers=workers)
    fit(Regression(grow=25), Points(), plan, folder=folder, device=CPU)


def as_rank(rank: int, meeting: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    train(folder)
    dist.destroy_process_group()


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
    chance, folder, hits = random.Random(workers), tmp_path / "run", 0
    for _ in range(KILLS):
        begun, job = lines(folder / "log.jsonl"), start(lambda: train(folder, workers))
        until = min(begun, STEPS - 8) + chance.randint(-2, 6)
        code = job.kill_when(lambda n=until: lines(folder / "log.jsonl") >= n)
        hits += code == -signal.SIGKILL
    train(folder)
    same(folder, calm)
    assert hits >= KILLS // 2


def test_two_processes_are_as_good_as_one_and_may_be_killed(
    tmp_path: Path, calm: Path, start: Start
) -> None:
    folder, chance = tmp_path / "run", random.Random(0)

    def begin(number: int) -> list[Job]:
        meeting = tmp_path / f"meeting-{number}"
        return [start(lambda r=rank: as_rank(r, meeting, folder)) for rank in range(2)]

    for number in range(3):
        until = lines(folder / "log.jsonl") + chance.randint(2, 9)
        first, second = begin(number)
        second.kill_when(lambda n=until: lines(folder / "log.jsonl") >= n)
        first.kill()
        first.wait()
    assert [job.wait() for job in begin(99)] == [0, 0]
    same(folder, calm)
