"""CT series made from arrays, and a prediction of them, without any network."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from penumbra.export.series import read_series

CLASSES = ["background", "spleen", "right kidney", "odd thing"]


@pytest.fixture(scope="session")
def need() -> Callable[[str], str]:
    """The path of an outside program; a test without it is skipped, but never in CI."""

    def find(program: str) -> str:
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
        if path is None and os.environ.get("CI") == "true":
            pytest.fail(f"{program} is missing; CI must have it")
        if path is None:
            pytest.skip(f"{program} is not installed")
        return path

    return find


@pytest.fixture(scope="session")
def write_ct() -> Callable[..., Path]:
    """Write HU [column, row, slice] as one CT series with everything that a CT must carry."""

    def write(
        folder: Path,
        hu: np.ndarray,
        *,
        axes: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
        spacing: tuple[float, float] = (0.8, 0.6),
        step: float = 3.0,
        thickness: float | None = None,
        down: bool = False,
    ) -> Path:
        folder.mkdir(parents=True)
        frame = np.array(axes, dtype=float)
        normal = np.cross(frame[:3], frame[3:])
        study, series, reference = generate_uid(), generate_uid(), generate_uid()
        for k in range(hu.shape[2]):
            ds = _slice(hu[:, :, k].T, study, series, reference)
            place = np.array([10.0, -20.0, 30.0]) + k * step * normal
            ds.ImagePositionPatient = [f"{v:.6f}" for v in place]
            ds.ImageOrientationPatient = [f"{v:.8f}" for v in frame]
            ds.PixelSpacing = [spacing[0], spacing[1]]
            ds.SliceThickness = thickness or step
            ds.InstanceNumber = hu.shape[2] - k if down else k + 1
            ds.save_as(folder / f"{ds.InstanceNumber:03d}.dcm", enforce_file_format=True)
        return folder

    return write


def _slice(hu: np.ndarray, study: str, series: str, reference: str) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = reference, ""
    ds.Modality, ds.Manufacturer = "CT", "Phantom"
    ds.PatientName, ds.PatientID = "Secret^Name", "P1"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
    ds.StudyDate, ds.StudyTime, ds.StudyID = "20260101", "120000", "1"
    ds.SeriesNumber, ds.AccessionNumber, ds.ReferringPhysicianName = 1, "", ""
    ds.AcquisitionNumber, ds.KVP = 1, 120
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
    ds.PixelData = np.ascontiguousarray(hu).astype("<i2").tobytes()
    return ds


@pytest.fixture(scope="session")
def write_prediction() -> Callable[..., Path]:
    """Write a made-up prediction on a series' grid, as ``penumbra predict`` lays it out."""

    def write(out: Path, series: Path, *, verdict: str = "review") -> Path:
        source = read_series(series)
        rng = np.random.default_rng(0)
        shape = source.shape
        probability = rng.dirichlet(np.ones(len(CLASSES)), shape).astype(np.float32)
        arrays = {
            "segmentation": probability.argmax(-1).astype(np.uint8),
            "probability": probability,
            "epistemic": rng.random(shape, dtype=np.float32),
            "aleatoric": rng.random(shape, dtype=np.float32),
            "attention": rng.random((*shape, 1), dtype=np.float32),
        }
        out.mkdir(parents=True)
        for name, array in arrays.items():
            image = nibabel.Nifti1Image(array, source.affine)
            nibabel.save(image, out / f"c1_{name}.nii.gz")
        volume = {"mean": 12.5, "low": 11.0, "high": 14.25, "level": 0.9, "draws": 8}
        record = {
            "schema": "penumbra-prediction-1",
            "case": "c1",
            "decision": {"verdict": verdict, "reasons": ["because"], "need_of_review": 1.2},
            "volumes_ml": {name: volume for name in CLASSES[1:]},
            "task": {
                "modality": "ct",
                "classes": CLASSES,
                "regions": {name: [k] for k, name in enumerate(CLASSES) if k},
                "findings": [],
            },
            "files": {name: [f"c1_{name}.nii.gz"] for name in arrays},
        }
        (out / "c1.json").write_text(json.dumps(record))
        return out

    return write
