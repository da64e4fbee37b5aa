"""Several processes on loopback: the loss curve of one, and kills that leave no trace."""

import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed.fsdp  # once, and not in every forked process
from jobs import Job, Start, as_rank, content, signalled_at, tiny

from penumbra import checkpoint, pipeline
from penumbra.config import Config

Together = Callable[..., list[Job]]


@pytest.fixture
def together(start: Start, tmp_path: Path) -> Together:
    meetings = iter(range(10_000))

    def begin(*work: Callable[[], object]) -> list[Job]:
        meeting = tmp_path / f"meeting-{next(meetings)}"
        return [start(partial(as_rank, k, 2, meeting, each)) for k, each in enumerate(work)]

    return begin


def shared(**overrides: object) -> Config:
    return tiny(train__accumulate=2, pretrain__steps=0, **overrides)


def losses(run: Path) -> list[float]:
    lines = (run / "train" / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["total"] for line in lines]


@pytest.mark.parametrize("shard", ["none", "full"])
def test_two_processes_give_the_losses_and_weights_of_one(
    phantom: Path, tmp_path: Path, together: Together, shard: str
) -> None:
    config, one, two = shared(), tmp_path / "one", tmp_path / "two"
    pipeline.train(config, phantom, one)
    both = shared(train__shard=shard)
    jobs = together(*[partial(pipeline.train, both, phantom, two)] * 2)
    assert [job.wait() for job in jobs] == [0, 0], [j.said for j in jobs]
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    first, second = (checkpoint.read(run / "train" / "last.safetensors")[0] for run in (one, two))
    # The norm of sliced gradients is another sum; Adam makes the most of a last bit.
    torch.testing.assert_close(first, second, rtol=1e-4 if shard == "none" else 1e-3, atol=1e-6)


def test_sliced_parameters_pretrain_as_whole_ones_do(
    phantom: Path, tmp_path: Path, together: Together
) -> None:
    """With a momentum encoder, whose parameters no gradient reaches."""
    found = []
    for shard in ("none", "full"):
        run = tmp_path / shard
        config = tiny(train__shard=shard, pretrain__queue=16)
        jobs = together(*[partial(pipeline.pretrain, config, phantom, run)] * 2)
        assert [job.wait() for job in jobs] == [0, 0], [j.said for j in jobs]
        found.append(checkpoint.read(run / "pretrain" / "last.safetensors")[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_a_sliced_training_continues_bit_for_bit(
    phantom: Path, tmp_path: Path, together: Together
) -> None:
    """Stopped before and after the posterior replaces parameters."""
    config, calm, hurt = shared(train__shard="full"), tmp_path / "calm", tmp_path / "hurt"
    jobs = together(*[partial(pipeline.train, config, phantom, calm)] * 2)
    assert [job.wait() for job in jobs] == [0, 0], [j.said for j in jobs]
    work = partial(pipeline.train, config, phantom, hurt)
    for step in (3, 7):
        jobs = together(work, signalled_at(step, signal.SIGTERM, work))
        assert [job.wait() for job in jobs] == [143, 143], [j.said for j in jobs]
    jobs = together(work, work)
    assert [job.wait() for job in jobs] == [0, 0], [j.said for j in jobs]
    assert content(hurt / "train") == content(calm / "train")


def test_one_process_that_is_asked_to_stop_stops_both(
    phantom: Path, tmp_path: Path, together: Together
) -> None:
    run = tmp_path / "run"
    config = shared(train__checkpoint_every=1000)
    work = partial(pipeline.train, config, phantom, run)
    jobs = together(work, signalled_at(3, signal.SIGTERM, work))
    assert [job.wait() for job in jobs] == [143, 143]
    assert 3 <= checkpoint.read(run / "train" / "last.safetensors")[1]["step"] < 10
