"""What a study will cost before it is begun, by what its finished jobs have cost."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from penumbra.model import Network
from penumbra.study.cell import Cell, Pretraining
from penumbra.study.job import Job, is_done
from penumbra.study.matrix import Study, waves
from penumbra.study.rows import read_row

MODEL_COPIES = 7
"""Parameters on disk per cell: the model, the last checkpoint with Adam's two moments, the best."""


@dataclass(frozen=True)
class Forecast:
    """The names of the jobs that are left, and what is said of their time and disk."""

    left: list[str]
    jobs: int
    time: str
    disk: str


def forecast(study: Study) -> Forecast:
    """Arms that have finished cells count with their own median; others with everybody's."""
    jobs = [job for wave in waves(study) for job in wave]
    left = [job for job in jobs if not is_done(job)]
    spent = _spent(study.out)
    cells = [job for job in left if isinstance(job, Cell)]
    if spent:
        everybody = median(x for each in spent.values() for x in each)
        seconds = sum(median(spent.get(cell.arm, [everybody])) for cell in cells)
        time = f"about {seconds / 60:.0f} min for {len(cells)} cells"
    else:
        time = "time unknown until the first cell is finished"
    return Forecast([job.name for job in left], len(jobs), time, _disk(study, left))


def _spent(out: Path) -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = {}
    for path in sorted((out / "rows").glob("*.json")):
        row = read_row(path)
        found.setdefault(row["arm"], []).append(row["seconds"])
    return found


def _disk(study: Study, left: Iterable[Job]) -> str:
    """From the folders that are finished, else from the parameters alone."""
    folders = [job.folder for job in left if isinstance(job, Cell | Pretraining)]
    done = [p for kind in ("cells", "pretrain") for p in (study.out / kind).glob("*")]
    if done:
        each = median(_size(folder) for folder in done)
        return f"about {len(folders) * each / 1e6:.0f} MB"
    network = Network(
        channels=4,
        classes=4,
        findings=1,
        dim=study.config.data.dim,
        widths=study.config.model.widths,
        neck=study.config.model.neck,
    )
    weights = 4 * sum(p.numel() for p in network.parameters())
    return f"about {len(folders) * MODEL_COPIES * weights / 1e6:.0f} MB of weights"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
