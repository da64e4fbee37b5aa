"""Shapes in signatures are checked while testing and free in production."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

install_import_hook("penumbra", "beartype.beartype")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))  # for lesion.py, however pytest imports

torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def untrained_ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a fresh Bayesian CT network, as good as any for testing what follows."""
    from penumbra import trained
    from penumbra.config import resolve
    from penumbra.types import Task

    config = resolve("abdominal-ct", size="tiny", overrides={"data.spacing_mm": None})
    classes = ("background", "spleen", "liver")
    task = Task(
        modality="ct",
        channels=("ct",),
        classes=classes,
        label_values={k: k for k in range(3)},
        regions={"spleen": (1,), "liver": (2,)},
    )
    network = trained.build(config, task)
    trained.convert(network, config)
    run = tmp_path_factory.mktemp("run")
    calibration = trained.Calibration(review_above=0.05)
    trained.Trained(network.eval(), task, config, calibration).save(run / "model")
    return run


@pytest.fixture(scope="session")
def case():
    """Makes prepared cases of noise with one channel, 2 x 2 x 3 mm."""
    import numpy as np

    from penumbra.data.geometry import Geometry
    from penumbra.data.preprocess import Prepared
    from penumbra.types import Case

    def make(shape: tuple[int, ...], seed: int = 0) -> Prepared:
        affine = np.diag([2.0, 2.0, 3.0, 1.0])
        box = tuple((0, n) for n in shape)
        geometry = Geometry(shape, affine, shape, box, box, shape, affine)
        image = np.random.default_rng(seed).random((1, *shape), dtype=np.float32)
        return Prepared(
            case=Case("a", "a", {"flair": Path("a.nii.gz")}),
            image=image,
            segmentation=None,
            findings=np.array([np.nan], dtype=np.float32),
            body=np.ones(shape, dtype=bool),
            masks=np.zeros((0, *shape), dtype=np.uint8),
            mapped=(),
            geometry=geometry,
            foreground=np.zeros((0, 1 + len(shape)), dtype=np.int64),
            body_box=box,
        )

    return make


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
        from pydicom.uid import generate_uid

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


def _slice(hu: np.ndarray, study: str, series: str, reference: str) -> Any:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

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
