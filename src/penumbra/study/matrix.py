"""The matrix: arms x fractions x seeds -> cells, run somewhere, resumed to the cell.

A cell is done when its row exists. Pre-trainings come first, because cells share them; combined
cells (a seed ensemble) come last. A cell that crashes is tried once more and then reported, and the
others go on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from penumbra import jobs as elsewhere
from penumbra import progress
from penumbra.config import Config, load
from penumbra.errors import ConfigError
from penumbra.files import locked, write_text
from penumbra.jobs import On
from penumbra.study.aftermath import SecondHead, Transferred
from penumbra.study.arms import ARMS, Arm
from penumbra.study.cell import Cell, Pretraining, members
from penumbra.study.explained import Explained
from penumbra.study.job import Job, is_done

Work = Callable[[Job], None]
ATTEMPTS = 2
EXPLAINED = ("ours", "supervised")
"""Arms whose maps are compared: attention, and post-hoc methods on either network."""

SPLIT_SEED = 0
"""Every seed trains on the same split: tests are paired, and no ensemble member saw a test case."""


@dataclass(frozen=True)
class Failure:
    """A job that did not finish, and what it last said."""

    job: str
    message: str


@dataclass(frozen=True)
class Study:
    """What is asked: a resolved preset, a cohort, and the axes of the matrix.

    Attributes:
        elsewhere: another institution's cohort, on which the cells of most labels are tested too.
    """

    config: Config
    data: Path
    out: Path
    arms: tuple[Arm, ...]
    fractions: tuple[float, ...]
    seeds: int
    elsewhere: Path | None = None

    @property
    def base(self) -> Path:
        return self.out / "study.yaml"

    def cells(self) -> list[Cell]:
        """Every cell, combined ones last (their ``seed`` is the number of members)."""
        cells = [
            self._cell(arm, fraction, seed)
            for fraction in self.fractions
            for arm in self.arms
            if arm.members is None
            for seed in range(self.seeds)
        ]
        combined = [
            self._cell(arm, fraction, self.seeds)
            for fraction in self.fractions
            for arm in self.arms
            if arm.members is not None
        ]
        needed = [member for cell in combined for member in members(cell)]
        return list(dict.fromkeys([*cells, *needed, *combined]))

    def pretrainings(self) -> list[Pretraining]:
        """Every encoder that the cells start from, each once."""
        return list(dict.fromkeys(p for cell in self.cells() if (p := cell.pretraining)))

    def aftermath(self) -> list[Job]:
        """What is asked of finished cells: explanations, a second head's cost, another cohort."""
        full = [cell for cell in self.cells() if cell.fraction == max(self.fractions)]
        other = self.elsewhere.resolve() if self.elsewhere else None
        outlined = other if self.config.modality == "xray" else None  # sets of findings have none
        jobs: list[Job] = [SecondHead(cell) for cell in full if cell.arm == "ours"]
        jobs += [Explained(cell, outlined) for arm in EXPLAINED for cell in full if cell.arm == arm]
        if other is not None:
            jobs += [Transferred(cell, other) for cell in full]
        return jobs

    def _cell(self, arm: Arm, fraction: float, seed: int) -> Cell:
        out = self.out.resolve()  # cells run in processes with a working folder of their own
        return Cell(arm.name, fraction, seed, str(out / self.base.name), self.data.resolve(), out)


def begin(study: Study) -> None:
    """Write the study's resolved preset, or refuse to continue one that has another.

    Raises:
        ConfigError: the folder holds a study with other settings, a fraction is outside (0, 1], or
            there is no seed.
    """
    if study.seeds < 1 or not study.fractions or not all(0 < f <= 1 for f in study.fractions):
        raise ConfigError("a study needs --seeds of 1 or more and --fractions within (0, 1]")
    base = settled(study.config)
    if study.base.exists():
        if load(study.base) != base:
            raise ConfigError(
                f"{study.base}: this study was begun with other settings; choose another --out"
            )
        return
    write_text(study.base, base.yaml())


def settled(config: Config) -> Config:
    """The same with the split fixed over seeds, and nothing validated that nothing is chosen by."""
    tree = config.model_dump(mode="json")
    if tree["train"]["keep"] == "last":
        tree["train"]["validate_every"] = 0
    tree["data"]["split_seed"] = tree["data"]["split_seed"] or SPLIT_SEED
    return Config.model_validate(tree)


def run(study: Study, *, on: On = "serial", workers: int = 2) -> list[Failure]:
    """Run whatever has no row yet, in three waves; returns what failed twice."""
    begin(study)
    failures: list[Failure] = []
    with locked(study.out):
        for wave in waves(study):
            lost = {failure.job for failure in failures}
            ready = [job for job in wave if not _waits_for(job) & lost]
            failures += [
                Failure(job.name, "not run: what it needs has failed")
                for job in wave
                if _waits_for(job) & lost
            ]
            failures += run_wave(ready, on=on, workers=workers)
    return failures


def waves(study: Study) -> list[list[Job]]:
    """Pre-trainings, single cells, combined cells, what follows: each needs those before it."""
    cells = study.cells()
    return [
        list(study.pretrainings()),
        [cell for cell in cells if not ARMS[cell.arm].members],
        [cell for cell in cells if ARMS[cell.arm].members],
        study.aftermath(),
    ]


def run_wave(
    jobs: Sequence[Job], *, on: On, workers: int, work: Work | None = None
) -> list[Failure]:
    """Run independent jobs; one that fails is tried once more after the others."""
    work = work or run_job
    left = [job for job in jobs if not is_done(job)]
    last: dict[str, str] = {}
    for attempt in range(1, ATTEMPTS + 1):
        failed = []
        for job, message in elsewhere.run(left, work, on=on, workers=workers):
            if message is None:
                progress.console.print(f"{job.name}: done")
                continue
            progress.console.print(f"{job.name}: failed, attempt {attempt}: {message}")
            last[job.name] = message
            failed.append(job)
        left = failed
        if not left:
            break
    return [Failure(job.name, last[job.name]) for job in left]


def run_job(job: Job) -> None:
    """Run a job: a function of a module, so that it can be sent to another process."""
    job.run()


def _waits_for(job: Job) -> set[str]:
    return {each.name for each in job.needs()}
