"""Several processes on loopback: the loss curve of one, and kills that leave no trace."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from jobs import Job, Start, lines, results, tiny

from penumbra import checkpoint, pipeline
from penumbra.config import Config


def as_rank(rank: int, world: int, meeting: Path, work: Callable[[], object]) -> None:
    """What ``torchrun`` does, without its import of everything in every process."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    work()
    dist.destroy_process_group()


@pytest.fixture
def together(start: Start, tmp_path: Path) -> Callable[[Callable[[], object]], list[Job]]:
    meetings = iter(range(10_000))

    def begin(work: Callable[[], object]) -> list[Job]:
        meeting = tmp_path / f"meeting-{next(meetings)}"
        return [start(lambda r=rank: as_rank(r, 2, meeting, work)) for rank in range(2)]

    return begin


def shared(**overrides: object) -> Config:
    return tiny(train__accumulate=2, pretrain__steps=0, **overrides)


def losses(run: Path) -> list[float]:
    lines = (run / "train" / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["total"] for line in lines]


def test_two_processes_give_the_losses_and_weights_of_one(
    phantom: Path, tmp_path: Path, together: Callable[[Callable[[], object]], list[Job]]
) -> None:
    config, one, two = shared(), tmp_path / "one", tmp_path / "two"
    pipeline.train(config, phantom, one)
    jobs = together(lambda: pipeline.train(config, phantom, two))
    assert [job.wait() for job in jobs] == [0, 0], [j.said for j in jobs]
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    first, second = (checkpoint.read(run / "train" / "last.safetensors")[0] for run in (one, two))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_killed_processes_end_as_if_nothing_had_happened(
    phantom: Path,
    tmp_path: Path,
    together: Callable[[Callable[[], object]], list[Job]],
    workers: int,
) -> None:
    config = tiny(data__workers=workers)
    calm, hurt = tmp_path / "calm", tmp_path / "hurt"
    assert [job.wait() for job in together(lambda: pipeline.run(config, phantom, calm))] == [0, 0]
    for stage, step in [("pretrain", 3), ("train", 5)]:
        jobs, log = (
            together(lambda: pipeline.run(config, phantom, hurt)),
            hurt / stage / "log.jsonl",
        )
        jobs[1].kill_when(lambda log=log, step=step: lines(log) >= step)
        jobs[0].kill()
        assert jobs[0].wait() in (-signal.SIGKILL, 99)  # 99: it missed the other first
    assert [job.wait() for job in together(lambda: pipeline.run(config, phantom, hurt))] == [0, 0]
    assert results(hurt) == results(calm)


def test_one_process_that_is_asked_to_stop_stops_both(
    phantom: Path, tmp_path: Path, together: Callable[[Callable[[], object]], list[Job]]
) -> None:
    run = tmp_path / "run"
    config = shared(train__checkpoint_every=1000)
    jobs = together(lambda: pipeline.train(config, phantom, run))
    log = run / "train" / "log.jsonl"
    assert jobs[1].kill_when(lambda: lines(log) >= 3, signal.SIGTERM) == 143
    assert jobs[0].wait() == 143
    assert 3 <= checkpoint.read(run / "train" / "last.safetensors")[1]["step"] < 10
