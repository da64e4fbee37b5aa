"""From the PACS and back: query, retrieve, predict, export, store."""

from pathlib import Path

from penumbra.errors import DataError
from penumbra.export.dicom import export_case
from penumbra.export.dicomweb import fetch_series, find_series, store
from penumbra.inference.scan import predict_scans
from penumbra.trained import load

MODALITIES = {"ct": "CT", "mri": "MR"}


def serve_study(run: Path, url: str, out: Path, *, study: str, series: str | None) -> list[Path]:
    """Predict one series of a study, or all of the model's modality; returns the stored objects.

    Scans, maps and objects lie in ``out/scans``, ``out/maps`` and ``out/objects``, one case per
    series, named ``series_1`` and so on: no name from the PACS becomes a file name.

    Raises:
        DataError: the server does not answer, has no such series, or the model makes no DICOM.
    """
    task = load(run).task
    if task.modality not in MODALITIES or not task.classes:
        raise DataError(f"{run}: only segmentations of CT and MR become DICOM objects")
    chosen = [series] if series else []
    if not chosen:
        modality = MODALITIES[task.modality]
        chosen = [uid for _, uid in find_series(url, modality=modality, study=study)]
        if not chosen:
            raise DataError(f"{url}: study {study} has no {modality} series; check the identifier")
    scans = [
        fetch_series(url, out / "scans" / f"series_{k}", study=study, series=uid)
        for k, uid in enumerate(chosen, start=1)
    ]
    predict_scans(run, scans, out / "maps")
    wrote = []
    for scan in scans:
        made = export_case(out / "maps", scan.name, scan, out / "objects")
        store(url, made)
        wrote += made
    return wrote
