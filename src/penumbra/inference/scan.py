"""One scan in, its maps out, in the scan's own grid (NIfTI for volumes, PNG for radiographs)."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from PIL import Image

from penumbra import trained
from penumbra.bayes import bank
from penumbra.bayes.temperature import apply_temperature
from penumbra.data.geometry import Geometry
from penumbra.data.preprocess import Prepared, prepare, restore
from penumbra.errors import DataError
from penumbra.evaluate.overlap import label_map
from penumbra.files import atomic, write_text
from penumbra.inference.maps import CaseMaps, map_case
from penumbra.trained import Trained
from penumbra.types import Case, Task

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".dcm", ".zip")
CREDIBLE = 0.9


def predict_scan(run: Path, scan: Path, out: Path, *, draws: int | None = None) -> list[Path]:
    """Predict one scan and write what the model says of it; returns the files written.

    Args:
        scan: one image, a DICOM series (folder or zip), or a case folder with one file per channel.
        draws: posterior draws; by default as many as the run's evaluation used.

    Raises:
        DataError: no model in ``run``, or the scan does not fit it.
    """
    model = trained.load(run)
    case = case_of(scan, model.task)
    prepared = prepare(case, model.task, model.config.data)
    generator = torch.Generator().manual_seed(model.config.seed)
    count = draws or model.config.evaluate.draws
    posterior = bank(model.network, draws=count, generator=generator)
    maps = map_case(model.network, posterior, prepared, model.task, model.config)
    return write_maps(maps, prepared, model, out)


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
    """Write segmentation, probability, uncertainty and attention maps and ``<case>.json``."""
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
    write = _write_nifti if len(case.geometry.shape) == 3 else _write_png
    wrote = []
    for name, array in arrays.items():
        wrote += write(out, f"{case.id}_{name}", array, case.geometry)
    summary = out / f"{case.id}.json"
    write_text(summary, json.dumps(_summary(maps, case, model), indent=1))
    return [*wrote, summary]


def _summary(maps: CaseMaps, case: Prepared, model: Trained) -> dict[str, Any]:
    summary: dict[str, Any] = {"case": case.id, "missing_channels": list(case.missing)}
    if maps.findings is not None:
        summary["findings"] = {
            name: {
                "probability": float(maps.findings.probability[k]),
                "present": bool(maps.findings.probability[k] >= model.calibration.thresholds[name]),
                "epistemic": float(maps.findings.epistemic[k]),
                "aleatoric": float(maps.findings.aleatoric[k]),
            }
            for k, name in enumerate(model.task.findings)
        }
    if maps.voxels is not None:
        tail = (1 - CREDIBLE) / 2
        summary["volumes_ml"] = {
            region: {
                "mean": float(draws.mean()),
                "low": float(np.quantile(draws, tail)),
                "high": float(np.quantile(draws, 1 - tail)),
            }
            for region, draws in maps.draw_volumes_ml.items()
        }
        summary["disagreement_between_draws"] = maps.disagreement
    summary["note"] = "Research software, not a medical device."
    return summary


def _write_nifti(out: Path, name: str, array: np.ndarray, placed: Geometry) -> list[Path]:
    back = restore(array, placed)
    if back.ndim == 4:  # NIfTI keeps classes and maps behind space
        back = np.moveaxis(back, 0, -1)
    image = nibabel.Nifti1Image(
        back.astype(np.uint8 if array.dtype == np.uint8 else np.float32), placed.file_affine
    )
    image.header.set_xyzt_units("mm")
    return [_save(out / f"{name}.nii.gz", lambda part: nibabel.save(image, part))]


def _write_png(out: Path, name: str, array: np.ndarray, placed: Geometry) -> list[Path]:
    """Labels as they are; maps as 16-bit gray, 65535 being 1."""
    back = restore(array, placed)
    layers = [back] if back.ndim == 2 else list(back)
    wrote = []
    for k, layer in enumerate(layers):
        path = out / (f"{name}.png" if len(layers) == 1 else f"{name}_{k}.png")
        if layer.dtype == np.uint8:
            picture = Image.fromarray(layer)
        else:
            picture = Image.fromarray((layer.clip(0, 1) * 65535).round().astype(np.uint16))
        wrote.append(_save(path, partial(picture.save, format="png")))
    return wrote


def _save(path: Path, write: Callable[[Path], None]) -> Path:
    """Write through a temporary file whose suffix the writers recognise."""
    with atomic(path) as part:
        named = part.with_name(part.name + "".join(path.suffixes[-2:]))
        write(named)
        named.replace(part)
    return path
