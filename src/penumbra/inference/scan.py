"""Scans in, their maps out in each scan's own grid, with a summary, a page and a triage list."""

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from penumbra import progress, trained
from penumbra.bayes.mahalanobis import Strangeness
from penumbra.bayes.temperature import apply_temperature
from penumbra.config.schema import Draws
from penumbra.data.preprocess import Prepared, prepare
from penumbra.errors import DataError
from penumbra.evaluate.overlap import label_map
from penumbra.files import write_text
from penumbra.inference.features import scan_features
from penumbra.inference.files import write_map
from penumbra.inference.maps import CaseMaps, map_case
from penumbra.inference.page import write_page
from penumbra.inference.summary import summarize
from penumbra.inference.triage import write_triage
from penumbra.trained import Trained, fingerprint, posterior
from penumbra.types import Case, Task

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".dcm", ".zip")


def predict_scans(
    run: Path,
    scans: Sequence[Path],
    out: Path,
    *,
    draws: Draws | None = None,
    skip_broken: bool = False,
) -> list[Path]:
    """Predict scans one after another and write what the model says; returns the files written.

    Each scan gets its maps, ``<case>.html`` and ``<case>.json``; ``triage.csv`` and
    ``triage.html`` list all cases of ``out``, the ones in most need of review first. A scan that
    this model has predicted into ``out`` already, with these draws, is left as it is.

    Args:
        scans: each an image, a DICOM series (folder or zip), or a case folder with one file per
            channel.
        draws: posterior draws, ``auto`` or ``propagate``; by default as in the run's evaluation.
        skip_broken: go on past scans that cannot be read; they are listed in ``skipped.csv``.

    Raises:
        DataError: no model in ``run``, a scan does not fit it (unless skipped), or two scans share
            a name.
    """
    model, mark = trained.load(run), f"{fingerprint(run)} {draws or ''}"
    _refuse_twins(scans)
    wrote: list[Path] = []
    skipped: list[tuple[str, str]] = []
    with progress.bar("predict", len(scans)) as advance:
        for scan in scans:
            name = name_of(scan)
            try:
                case = case_of(scan, model.task)
                source = hashlib.sha256(f"{mark} {_stamp(scan)}".encode()).hexdigest()[:16]
                if source != _source(out / f"{name}.json"):
                    wrote += predict_case(model, case, out, draws=draws, source=source)
            except DataError as error:
                if not skip_broken:
                    raise
                skipped.append((name, str(error)))
            advance(name)
    return [*wrote, *write_triage(out, run), *_write_skipped(out, skipped)]


def _stamp(scan: Path) -> str:
    """Names, sizes and times of a scan's files."""
    files = sorted(p for p in scan.rglob("*") if p.is_file()) if scan.is_dir() else [scan]
    return repr([(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.exists()])


def _source(summary: Path) -> str | None:
    """What a finished prediction was made from; its summary is written last."""
    try:
        return str(json.loads(summary.read_text())["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_skipped(out: Path, skipped: Sequence[tuple[str, str]]) -> list[Path]:
    path = out / "skipped.csv"
    path.unlink(missing_ok=True)
    if not skipped:
        return []
    text = io.StringIO()
    csv.writer(text).writerows([("case", "reason"), *skipped])
    write_text(path, text.getvalue())
    return [path]


def predict_case(
    model: Trained, case: Case, out: Path, *, draws: Draws | None = None, source: str = ""
) -> list[Path]:
    """Predict one case and write its maps, page and, last, its summary.

    The same model, scan and number of draws give the same files. ``source`` stands in the summary.
    """
    prepared = prepare(case, model.task, model.config.data)
    generator = torch.Generator().manual_seed(model.config.seed)
    config = model.config
    if draws is not None:
        wanted = config.evaluate.model_copy(update={"draws": draws})
        config = config.model_copy(update={"evaluate": wanted})
    bank = posterior(model.network, config.evaluate.draws, generator=generator)
    maps = map_case(model.network, bank, prepared, model.task, config)
    strangeness = None
    if model.familiarity is not None:
        strangeness = model.familiarity.judge(scan_features(model.network, prepared, config))
    return write_maps(maps, prepared, model, out, strangeness=strangeness, source=source)


def _refuse_twins(scans: Sequence[Path]) -> None:
    names = [name_of(scan) for scan in scans]
    twin = next((name for name in names if names.count(name) > 1), None)
    if twin is not None:
        raise DataError(f"{twin}: two scans have this name; predict them into two folders")


def name_of(scan: Path) -> str:
    """The case's name: the file's or folder's, without the ending."""
    name = scan.name or scan.resolve().name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def case_of(scan: Path, task: Task) -> Case:
    """The files of an unlabelled case, matched to the task's channels by name.

    Raises:
        DataError: the scan has none of the channels, or one file could be several.
    """
    name = name_of(scan)
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


def write_maps(
    maps: CaseMaps,
    case: Prepared,
    model: Trained,
    out: Path,
    *,
    strangeness: Strangeness | None = None,
    source: str = "",
) -> list[Path]:
    """Write segmentation, probability, uncertainty and attention maps, page and summary.

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
    outside = float(shown["image"].min())
    files = {
        name: write_map(
            out, f"{case.id}_{name}", array, case.geometry, fill=outside if name == "image" else 0.0
        )
        for name, array in shown.items()
    }
    record = summarize(maps, case, model, arrays.get("segmentation"), strangeness)
    record["files"] = {name: [path.name for path in paths] for name, paths in files.items()}
    record["source"] = source
    page = write_page(out / f"{case.id}.html", record, case, arrays, model.config)
    summary = out / f"{case.id}.json"
    write_text(summary, json.dumps(record, indent=1))
    return [*(path for paths in files.values() for path in paths), summary, page]
