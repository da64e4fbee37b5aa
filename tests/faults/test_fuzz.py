"""Damaged files of every kind: one line that names the file, in seconds, without filling memory.

``PENUMBRA_FUZZ=2000`` mutates that many of each kind; a run of the suite mutates a few.
"""

import gzip
import io
import json
import os
import resource
import struct
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobs import tiny
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from torch import nn

from penumbra import checkpoint, config, trained
from penumbra.data.cohort import read_cohort
from penumbra.data.geometry import load_volume
from penumbra.data.phantom import write_phantom
from penumbra.errors import PenumbraError
from penumbra.trained import Trained
from penumbra.types import Task

EXAMPLES = int(os.environ.get("PENUMBRA_FUZZ", "6"))
SECONDS, BYTES = 10.0, 2 * 2**30


@dataclass(frozen=True)
class Seed:
    """A sound file, and how it is read."""

    path: Path
    read: Callable[[Path], object]


def _nifti(folder: Path, name: str) -> Path:
    array = np.arange(8 * 7 * 6, dtype=np.int16).reshape(8, 7, 6)
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 3.0, 1.0])), folder / name)
    return folder / name


def _dicom(folder: Path) -> Path:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["a"])
    ds.SeriesInstanceUID = ds.FrameOfReferenceUID = generate_uid(entropy_srcs=["b"])
    ds.Modality, ds.PatientID = "CT", "phantom"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = 8, 6, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1000
    ds.PixelData = np.arange(48, dtype="<u2").tobytes()
    ds.save_as(folder / "slice.dcm", enforce_file_format=True)
    return folder / "slice.dcm"


def _png(folder: Path) -> Path:
    pixels = np.arange(40 * 30, dtype=np.uint32).reshape(40, 30) % 251
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "film.png")
    return folder / "film.png"


def _model(folder: Path) -> Path:
    task = Task("xray", ("xray",), findings=("Edema", "Fracture"))
    settings_ = tiny(bayes__posterior="none")
    Trained(trained.build(settings_, task), task, settings_).save(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seed]:
    folder = tmp_path_factory.mktemp("seeds")
    write_phantom(folder / "mri", modality="mri", cases=4, seed=0, shape=(16, 16, 8))
    write_phantom(folder / "films", modality="xray", cases=4, seed=0, shape=(24, 24))
    (folder / "config.yaml").write_text(tiny().yaml())
    checkpoint.save(folder / "last.safetensors", nn.Linear(3, 2), record={"step": 1})
    model = _model(folder)
    return {
        "nii": Seed(_nifti(folder, "scan.nii"), load_volume),
        "nii.gz": Seed(_nifti(folder, "scan.nii.gz"), load_volume),
        "png": Seed(_png(folder), load_volume),
        "dicom": Seed(_dicom(folder), load_volume),
        "yaml": Seed(folder / "config.yaml", config.load),
        "json": Seed(
            folder / "mri" / "splits.json", lambda p: read_cohort(p.parent, modality="mri")
        ),
        "csv": Seed(
            folder / "mri" / "participants.csv", lambda p: read_cohort(p.parent, modality="mri")
        ),
        "table": Seed(
            folder / "films" / "train.csv", lambda p: read_cohort(p.parent, modality="xray")
        ),
        "checkpoint": Seed(folder / "last.safetensors", checkpoint.read),
        "model": Seed(model / "model.json", lambda p: trained.load(p.parent)),
        "weights": Seed(model / "model.safetensors", lambda p: trained.load(p.parent)),
    }


KINDS = ["nii", "nii.gz", "png", "dicom", "yaml", "json", "csv", "table", "checkpoint", "model"]
KINDS += ["weights"]

place = st.floats(0, 1, exclude_max=True)
NUMBERS = (("<h", 32767), ("<i", 2**31 - 1), ("<q", 2**62), ("<f", 1e38))
HUGE = [struct.pack(form, number) for form, number in NUMBERS]
mutation = st.one_of(
    st.tuples(st.just("flip"), place, st.integers(0, 7)),
    st.tuples(st.just("cut"), place, st.none()),
    st.tuples(st.just("drop"), place, st.integers(1, 64)),
    st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=16)),
    st.tuples(st.just("write"), place, st.sampled_from([*HUGE, b"\0" * 8, b"\xff" * 8, b"nan"])),
    st.tuples(st.just("repeat"), place, st.integers(2, 50)),
)


def mutate(content: bytes, changes: list[tuple[str, float, object]]) -> bytes:
    for kind, where, how in changes:
        at = int(where * len(content))
        match kind, how:
            case "flip", int(bit) if at < len(content):
                content = content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]
            case "cut", _:
                content = content[:at]
            case "drop", int(count):
                content = content[:at] + content[at + count :]
            case "insert", bytes(more):
                content = content[:at] + more + content[at:]
            case "write", bytes(value):
                content = content[:at] + value + content[at + len(value) :]
            case "repeat", int(times):
                content = content[:at] + content[at : at + 32] * times + content[at:]
    return content


def answer(path: Path, read: Callable[[Path], object]) -> str | None:
    """What the reader says, None when it accepts the file; anything else fails the test."""
    begun = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about what is damaged
        try:
            read(path)
            said = None
        except PenumbraError as error:
            said = str(error)
    assert time.monotonic() - begun < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < BYTES
    return said


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(changes=st.lists(mutation, min_size=1, max_size=4))
def test_a_mutated_file_is_read_or_refused_by_name(
    seeds: dict[str, Seed], kind: str, changes: list[tuple[str, float, object]]
) -> None:
    seed = seeds[kind]
    sound = seed.path.read_bytes()
    try:
        content = gzip.decompress(sound) if kind == "nii.gz" else sound
        changed = mutate(content, changes)
        seed.path.write_bytes(gzip.compress(changed, mtime=0) if kind == "nii.gz" else changed)
        said = answer(seed.path, seed.read)
    finally:
        seed.path.write_bytes(sound)
    if said is not None:
        assert seed.path.name in said or str(seed.path.parent) in said, said


@pytest.mark.parametrize("kind", KINDS)
def test_the_seeds_themselves_are_sound(seeds: dict[str, Seed], kind: str) -> None:
    assert answer(seeds[kind].path, seeds[kind].read) is None


def test_a_nifti_header_that_claims_terabytes_is_refused_before_they_are_asked_for(
    seeds: dict[str, Seed], tmp_path: Path
) -> None:
    content = bytearray(seeds["nii"].path.read_bytes())
    struct.pack_into("<8h", content, 40, 3, 32767, 32767, 32767, 1, 1, 1, 1)
    path = tmp_path / "huge.nii"
    path.write_bytes(content)
    assert "huge.nii" in str(answer(path, load_volume))


def test_a_small_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path, packed = tmp_path / "bomb.nii.gz", io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as file:
        header = nib.Nifti1Image(np.zeros((2, 2, 2), dtype=np.int16), np.eye(4)).to_bytes()
        for _ in range(64):
            file.write(header + bytes(2**20))
    path.write_bytes(packed.getvalue())
    answer(path, load_volume)  # read as the 2 x 2 x 2 that it says, or refused; never unpacked


def test_a_safetensors_header_that_claims_gigabytes_is_refused(
    seeds: dict[str, Seed], tmp_path: Path
) -> None:
    header = json.dumps(
        {"model/w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert "huge.safetensors" in str(answer(path, checkpoint.read))
    path.write_bytes(struct.pack("<Q", 2**63 - 1) + header)
    assert "huge.safetensors" in str(answer(path, checkpoint.read))


def test_a_yaml_file_of_aliases_that_grow_without_end_is_refused(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path = tmp_path / "laughs.yaml"
    path.write_text("\n".join([*levels, "train: *a11"]))
    assert "laughs.yaml" in str(answer(path, config.load))
