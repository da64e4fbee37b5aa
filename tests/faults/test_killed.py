"""kill -9 anywhere, the same command again: the same weights and the same numbers, bit for bit."""

import os
import random
import signal
from pathlib import Path

import pytest
from jobs import Start, lines, results, tiny

from penumbra import pipeline

KILLS = int(os.environ.get("PENUMBRA_KILLS", "0"))
"""Kills per stage and loader of the long version; 20 is what a release is tested with."""


@pytest.fixture(scope="session")
def unhurt(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("unhurt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENUMBRA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        pipeline.run(tiny(), phantom, out)
    return results(out)


@pytest.mark.parametrize(
    ("workers", "places"),
    [(0, [("pretrain", 3), ("train", 1), ("train", 7)]), (2, [("train", 5)])],
)
def test_a_killed_run_ends_as_if_nothing_had_happened(
    phantom: Path,
    tmp_path: Path,
    unhurt: dict[str, str],
    start: Start,
    workers: int,
    places: list[tuple[str, int]],
) -> None:
    run, config = tmp_path / "run", tiny(data__workers=workers)
    for stage, step in places:
        job = start(lambda: pipeline.run(config, phantom, run))
        log = run / stage / "log.jsonl"
        assert job.kill_when(lambda log=log, step=step: lines(log) >= step) == -signal.SIGKILL
    pipeline.run(config, phantom, run)
    assert results(run) == unhurt
    assert not list(run.rglob("*.part"))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.skipif(not KILLS, reason="set PENUMBRA_KILLS=20")
def test_a_run_killed_again_and_again_ends_as_if_nothing_had_happened(
    phantom: Path, tmp_path: Path, unhurt: dict[str, str], start: Start, workers: int
) -> None:
    chance = random.Random(workers)
    config, run = tiny(data__workers=workers), tmp_path / "run"
    for _ in range(KILLS):
        stage, steps = chance.choice([("pretrain", 5), ("train", 10)])
        job, log = start(lambda: pipeline.run(config, phantom, run)), run / stage / "log.jsonl"
        begun = lines(log)
        more = chance.randint(1, 3)
        job.kill_when(lambda log=log, n=min(begun + more, steps): lines(log) >= n)
    pipeline.run(config, phantom, run)
    assert results(run) == unhurt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(
    phantom: Path, tmp_path: Path, unhurt: dict[str, str], start: Start, number: int
) -> None:
    run, config = tmp_path / "run", tiny(train__checkpoint_every=1000)
    log = run / "train" / "log.jsonl"
    job = start(lambda: pipeline.run(config, phantom, run))
    assert job.kill_when(lambda: lines(log) >= 4, number) == 128 + number
    assert "the same command continues" in job.said.read_text()
    saved = lines(log)
    assert 4 <= saved < 10
    pipeline.run(config, phantom, run)
    assert lines(log) == 10
    assert results(run) == unhurt
