"""Killed anywhere, the same command again: the same weights and the same numbers, bit for bit.

Every stage begins from the folder that the stages before it left, is killed once at a random moment
of its computing, and is then run to its end; everything it leaves must equal what an unhurt run
left. ``PENUMBRA_KILLS=20`` kills each that often; a run of the suite kills each once.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from jobs import Job, Start, as_rank, content, dies_after, lines, signalled_at, tiny

from penumbra import pipeline
from penumbra.config import Config
from penumbra.inference.scan import predict_scans
from penumbra.study import matrix
from penumbra.study.arms import chosen

KILLS = int(os.environ.get("PENUMBRA_KILLS", "1"))
ENCODER = "pretrain/encoder.safetensors"


def pretrain(config: Config, data: Path, run: Path) -> None:
    pipeline.pretrain(config, data, run)


def train(config: Config, data: Path, run: Path) -> None:
    pipeline.train(config, data, run, encoder=run / ENCODER)


def whole(config: Config, data: Path, run: Path) -> None:
    pipeline.run(config, data, run)


def predict(config: Config, data: Path, run: Path) -> None:
    predict_scans(run, sorted((data.parent / "films").iterdir()), run / "pred")


def study(config: Config, data: Path, run: Path) -> None:
    matrix.run(matrix.Study(config, data, run / "study", tuple(chosen(["ssl"])), (1.0,), 1))


STAGES = {
    "pretrain": pretrain,
    "train": train,
    "calibrate": train,
    "evaluate": whole,
    "predict": predict,
    "study": study,
}
ALONE = ("predict", "study")
"""In the order in which a run meets them; "evaluate" is the rest of a run, with its report."""


@dataclass
class Course:
    """One stage in one or two processes: where it begins, where it ends, how long it computes."""

    before: Path
    after: dict[str, str]
    cpu_s: float


def begin(start: Start, work: list[Callable[[], object]], meeting: Path) -> list[Job]:
    if len(work) == 1:
        return [start(work[0])]
    return [
        start(partial(as_rank, rank, len(work), meeting, each)) for rank, each in enumerate(work)
    ]


class Courses:
    """Every stage once, unhurt, in one process or two; each is run when it is first asked for."""

    def __init__(self, root: Path, phantom: Path) -> None:
        self.root, self.phantom = root, phantom
        self.found: dict[tuple[str, int], Course] = {}
        for stage in (whole, predict, study):  # what every process would otherwise load and compile
            stage(tiny(), phantom, root / "warm")

    def __getitem__(self, key: tuple[str, int]) -> Course:
        name, world = key
        for each in STAGES:
            if (each, world) not in self.found:
                self.found[each, world] = self._run(each, world)
            if each == name:
                break
        return self.found[key]

    def _run(self, name: str, world: int) -> Course:
        run = self.root / f"course-{world}" / "run"
        run.mkdir(parents=True, exist_ok=True)
        if name == "calibrate":
            shutil.rmtree(run / "model")
        before = self.root / f"before-{name}-{world}"
        shutil.copytree(run, before)
        work = partial(STAGES[name], tiny(), self.phantom, run)
        jobs = begin(self._start, [work] * world, self.root / f"meeting-{name}-{world}")
        assert [job.wait() for job in jobs] == [0] * world, jobs[0].said.read_text()
        return Course(before, content(run), max(job.cpu_s for job in jobs))

    def _start(self, work: Callable[[], object]) -> Job:
        return Job(work, said=self.root / f"said-{len(list(self.root.iterdir()))}.txt")


@pytest.fixture(scope="module")
def courses(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Courses]:
    films = phantom.parent / "films"
    films.mkdir()
    for number, film in enumerate(sorted(phantom.rglob("*_frontal.png"))[:6]):
        (films / f"film-{number}.png").symlink_to(film)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENUMBRA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield Courses(tmp_path_factory.mktemp("courses"), phantom)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_that_is_killed_ends_as_if_nothing_had_happened(
    phantom: Path,
    tmp_path: Path,
    courses: Courses,
    start: Start,
    name: str,
    world: int,
    workers: int,
) -> None:
    if (name in ALONE and world > 1) or (name == "predict" and workers):
        pytest.skip("there is no such job")
    if KILLS == 1 and (world, workers) != (1, 0) and (name, world, workers) != ("train", 2, 2):
        pytest.skip("set PENUMBRA_KILLS=20")
    chance, course = random.Random(f"{name} {world} {workers}"), courses[name, world]
    for number in range(KILLS):
        run = tmp_path / f"{number}" / "run"
        shutil.copytree(course.before, run)
        work = partial(STAGES[name], tiny(data__workers=workers), phantom, run)
        victim = chance.randrange(world)
        doomed = [work] * world
        doomed[victim] = dies_after(chance.uniform(0, course.cpu_s), work)
        jobs = begin(start, doomed, tmp_path / f"killed-{number}")
        code = jobs.pop(victim).wait()
        assert code in (-signal.SIGPROF, 0)  # 0: it was faster this time
        for other in jobs:  # as torchrun ends the others when one is lost
            if code:
                other.kill()
            other.wait()
        jobs = begin(start, [work] * world, tmp_path / f"again-{number}")
        assert [job.wait() for job in jobs] == [0] * world, jobs[0].said.read_text()
        assert content(run) == course.after
        shutil.rmtree(run)


def test_a_run_killed_again_and_again_ends_as_if_nothing_had_happened(
    phantom: Path, tmp_path: Path, courses: Courses, start: Start
) -> None:
    chance, run = random.Random(0), tmp_path / "run"
    for _ in range(2 + KILLS):
        job = start(dies_after(chance.uniform(0.2, 1.5), lambda: whole(tiny(), phantom, run)))
        job.wait()
    whole(tiny(), phantom, run)
    assert content(run) == courses["evaluate", 1].after


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(
    phantom: Path,
    tmp_path: Path,
    courses: Courses,
    start: Start,
    number: int,
) -> None:
    course, run = courses["train", 1], tmp_path / "run"
    shutil.copytree(course.before, run)
    config = tiny(train__checkpoint_every=1000)
    (run / "config.yaml").write_text(config.yaml())
    log = run / "train" / "log.jsonl"
    job = start(signalled_at(4, number, lambda: train(config, phantom, run)))
    assert job.wait() == 128 + number
    assert "the same command continues" in job.said.read_text()
    assert lines(log) == 5  # the step in which it came is finished
    train(config, phantom, run)
    assert lines(log) == 10
    assert content(run)["train/last.safetensors"] == course.after["train/last.safetensors"]


def test_a_clock_that_jumps_and_files_of_the_future_change_nothing(
    phantom: Path, tmp_path: Path, courses: Courses, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(then)))
    run = tmp_path / "run"
    shutil.copytree(courses["train", 1].before, run)
    for number, path in enumerate(sorted([*phantom.rglob("*.*"), *run.rglob("*.*")])):
        os.utime(path, (0, 0) if number % 2 else (4e9, 4e9))
    train(tiny(), phantom, run)
    assert content(run) == courses["train", 1].after
