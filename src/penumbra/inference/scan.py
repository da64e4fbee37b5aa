"""Scans in, their maps out in each scan's own grid, with a summary, a page and a triage list."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from penumbra import progress, trained
from penumbra.bayes import bank
from penumbra.bayes.temperature import apply_temperature
from penumbra.data.preprocess import Prepared, prepare
from penumbra.errors import DataError
from penumbra.evaluate.overlap import label_map
from penumbra.files import write_text
from penumbra.inference.files import write_map
from penumbra.inference.maps import CaseMaps, map_case
from penumbra.inference.page import write_page
from penumbra.inference.summary import summarize
from penumbra.inference.triage import write_triage
from penumbra.trained import Trained
from penumbra.types import Case, Task

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".dcm", ".zip")


def predict_scans(
    run: Path, scans: Sequence[Path], out: Path, *, draws: int | None = None
) -> list[Path]:
    """Predict scans one after another and write what the model says; returns the files written.

    Each scan gets its maps, ``<case>.json`` and ``<case>.html``; ``triage.csv`` and
    ``triage.html`` list all cases of ``out``, the ones in most need of review first.

    Args:
        scans: each an image, a DICOM series (folder or zip), or a case folder with one file per
            channel.
        draws: posterior draws; by default as many as the run's evaluation used.

    Raises:
        DataError: no model in ``run``, a scan does not fit it, or two scans share a name.
    """
    model = trained.load(run)
    cases = [case_of(scan, model.task) for scan in scans]
    _refuse_twins(cases)
    wrote: list[Path] = []
    with progress.bar("predict", len(cases)) as advance:
        for case in cases:
            wrote += predict_case(model, case, out, draws=draws)
            advance(case.id)
    return [*wrote, *write_triage(out, run)]


def predict_case(model: Trained, case: Case, out: Path, *, draws: int | None = None) -> list[Path]:
    """Predict one case and write its maps, summary and page.

    The same model, scan and number of draws give the same files.
    """
    prepared = prepare(case, model.task, model.config.data)
    generator = torch.Generator().manual_seed(model.config.seed)
    count = draws or model.config.evaluate.draws
    posterior = bank(model.network, draws=count, generator=generator)
    maps = map_case(model.network, posterior, prepared, model.task, model.config)
    return write_maps(maps, prepared, model, out)


def _refuse_twins(cases: Sequence[Case]) -> None:
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise DataError(f"{case.id}: two scans have this name; predict them into two folders")
        seen.add(case.id)


def case_of(scan: Path, task: Task) -> Case:
    """The files of an unlabelled case, matched to the task's channels by name.

    Raises:
        DataError: the scan has none of the channels, or one file could be several.
    """
    name = scan.name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    files = sorted(scan.iterdir()) if scan.is_dir() else [scan]
    matched = {c: f for c in task.channels for f in files if _is_channel(f, c)}
    if not matched and len(task.channels) == 1:
        matched = {task.channels[0]: _only(files, scan)}
    if not matched:
        raise DataError(
            f"{scan}: none of the channels {', '.join(task.channels)} is there; name the files "
            f"like {name}_{task.channels[0]}.nii.gz, in one folder per case"
        )
    return Case(id=name, patient=name, images=matched)


def _is_channel(path: Path, channel: str) -> bool:
    stem = path.name.lower()
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem.endswith((f"_{channel}", f"-{channel}")) or stem == channel


def _only(files: list[Path], scan: Path) -> Path:
    """The one image of a single-channel scan; a DICOM folder is read as a whole."""
    images = [f for f in files if f.name.lower().endswith(SUFFIXES) and not _is_dicom(f)]
    if scan.is_dir() and not images:
        return scan
    if len(images) > 1:
        listed = ", ".join(f.name for f in images[:5])
        raise DataError(f"{scan}: holds {len(images)} images ({listed}); name one of them")
    return images[0] if images else scan


def _is_dicom(path: Path) -> bool:
    return path.suffix.lower() == ".dcm"


def write_maps(maps: CaseMaps, case: Prepared, model: Trained, out: Path) -> list[Path]:
    """Write segmentation, probability, uncertainty and attention maps, summary and page.

    The first channel goes with them, as the network saw it, so that the maps can be looked at.
    """
    out.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    if maps.voxels is not None:
        scaled = apply_temperature(maps.voxels.probability[None], model.calibration.temperature)[0]
        arrays["segmentation"] = label_map(scaled.numpy()).astype(np.uint8)
        arrays["probability"] = scaled.numpy()
        arrays["epistemic"] = maps.voxels.epistemic.numpy()
        arrays["aleatoric"] = maps.voxels.aleatoric.numpy()
        arrays["entropy_nats"] = maps.voxels.entropy_nats.numpy()
    arrays["attention"] = maps.attention.numpy()
    shown = {"image": np.asarray(case.image[0], dtype=np.float32), **arrays}
    # What was cropped away is air: darkest, and background for certain.
    fills: dict[str, float | list[float]] = {
        "image": float(shown["image"].min()),
        "probability": [1.0] + [0.0] * (len(model.task.classes) - 1),
    }
    files = {
        name: write_map(out, f"{case.id}_{name}", array, case.geometry, fill=fills.get(name, 0.0))
        for name, array in shown.items()
    }
    record = summarize(maps, case, model, arrays.get("segmentation"))
    record["files"] = {name: [path.name for path in paths] for name, paths in files.items()}
    summary = out / f"{case.id}.json"
    write_text(summary, json.dumps(record, indent=1))
    page = write_page(out / f"{case.id}.html", record, case, arrays, model.config)
    return [*(path for paths in files.values() for path in paths), summary, page]
