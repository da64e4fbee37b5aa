"""Scans in, predictions out: here or elsewhere, resumed to the scan, a bad one holding up none."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from penumbra import __version__, jobs, progress, trained
from penumbra.config.schema import Draws
from penumbra.data.store import fingerprint
from penumbra.errors import DataError, PenumbraError, WriteError
from penumbra.files import locked
from penumbra.inference.case import predict, write_prediction
from penumbra.inference.channels import cases_of
from penumbra.inference.triage import write_triage
from penumbra.jobs import On
from penumbra.trained import Trained
from penumbra.types import Case

SCANS_PER_JOB = 16
"""Scans for which a process of its own is worth loading the libraries and the model."""


@dataclass(frozen=True)
class Batch:
    """Scans for one process, which reads the model itself."""

    run: Path
    cases: tuple[Case, ...]
    out: Path
    draws: Draws | None


def predict_scans(
    run: Path,
    scans: Sequence[Path],
    out: Path,
    *,
    draws: Draws | None = None,
    on: On = "serial",
    workers: int = 2,
) -> list[Path]:
    """Predict scans and write what the model says; returns the files written.

    Each scan gets its maps, ``<case>.json`` and ``<case>.html``; ``triage.csv`` and
    ``triage.html`` list all cases of ``out``, the ones in most need of review first. A scan whose
    summary says that this model has seen it, with the same draws, is not predicted again.

    Args:
        scans: each an image, a DICOM series (folder or zip), a case folder with one file per
            channel, or a table of cases (``cases.csv``, or a folder with one).
        draws: posterior draws, ``auto`` or ``propagate``; by default as in the run's evaluation.
        on: here, in ``workers`` processes, or on a Ray cluster that sees the same folders.

    Raises:
        DataError: no model in ``run``, two scans share a name, another process is at work in
            ``out``, or some scans do not fit (all others are predicted first).
        WriteError: ``out`` cannot be written; what is there stays.
    """
    model = trained.load(run)
    here = on == "serial"  # a Ray worker has a working folder of its own
    cases = [c for s in scans for c in cases_of(s if here else s.absolute(), model.task)]
    _refuse_twins(cases)
    wrote: list[Path] = []
    refused: list[str] = []
    with locked(out), progress.bar("predict", len(cases)) as advance:
        match on:
            case "serial":
                for files, problem in _each(model, run, cases, out, draws):
                    wrote += files
                    refused += [problem] if problem else []
                    advance()
            case "processes" | "ray":
                batches = _batches(run, cases, out, draws, workers)
                for batch, message in jobs.run(batches, predict_batch, on=on, workers=workers):
                    refused += [message] if message else []
                    for case in batch.cases:
                        wrote += _files(out / f"{case.id}.json")
                        advance()
        wrote += write_triage(out, run)
    if refused:
        raise DataError("\n".join(refused))
    return wrote


def predict_batch(batch: Batch) -> None:
    """Predict a batch's scans; those that cannot be predicted are named when the others are done.

    Raises:
        DataError: a line for each scan that could not be read or does not fit the model.
    """
    model = trained.load(batch.run)
    ended = _each(model, batch.run, batch.cases, batch.out, batch.draws)
    problems = [problem for _, problem in ended if problem]
    if problems:
        raise DataError("\n".join(problems))


def _each(
    model: Trained, run: Path, cases: Sequence[Case], out: Path, draws: Draws | None
) -> Iterator[tuple[list[Path], str | None]]:
    maker = trained.fingerprint(run)
    for case in cases:
        try:
            origin = _origin(maker, case, draws or model.config.evaluate.draws)
            done = _already(out / f"{case.id}.json", origin)
            yield done or _written(model, case, out, draws, origin), None
        except WriteError:
            raise
        except PenumbraError as error:
            yield [], str(error)


def _written(model: Trained, case: Case, out: Path, draws: Draws | None, origin: str) -> list[Path]:
    return write_prediction(predict(model, case, draws=draws), out, origin=origin)


def _batches(
    run: Path, cases: Sequence[Case], out: Path, draws: Draws | None, workers: int
) -> list[Batch]:
    size = min(SCANS_PER_JOB, -(-len(cases) // workers))
    run, out = run.absolute(), out.absolute()
    parts = (tuple(cases[k : k + size]) for k in range(0, len(cases), size))
    return [Batch(run, part, out, draws) for part in parts]


def _already(summary: Path, origin: str) -> list[Path]:
    """The files of a case that was predicted from the same origin; none when it must be again."""
    files = _files(summary, origin)
    return files if all(file.is_file() for file in files) else []


def _files(summary: Path, origin: str | None = None) -> list[Path]:
    """What a case's summary lists, and itself; none without one, or with another origin's."""
    try:
        record = json.loads(summary.read_text())
        if origin not in (None, record["origin"]):
            return []
        names = [name for each in record["files"].values() for name in each]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [*(summary.with_name(n) for n in names), summary, summary.with_suffix(".html")]


def _origin(maker: str, case: Case, draws: Draws) -> str:
    """A hash of all that a prediction follows from."""
    files = {channel: fingerprint(path) for channel, path in case.images.items()}
    facts = json.dumps([__version__, maker, files, draws], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:24]


def _refuse_twins(cases: Sequence[Case]) -> None:
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise DataError(f"{case.id}: two scans have this name; predict them into two folders")
        seen.add(case.id)
