"""Damaged files of every kind: one line that names the file, in seconds, without filling memory.

A run of the suite mutates a few of each kind; ``PENUMBRA_FUZZ=200`` that many of each, and
``PENUMBRA_REAL=FOLDER`` adds real files found there to the seeds. Each kind is fuzzed in a process
of its own, so that its memory can be measured and nothing that hangs or crashes holds up the rest.
"""

import gzip
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import mutations
import nibabel
import numpy as np
import pydicom.data
import pytest
from jobs import Start, tiny
from PIL import Image
from torch import nn

from penumbra import checkpoint, config, trained
from penumbra.data.cohort import read_cohort
from penumbra.data.geometry import load_volume
from penumbra.data.phantom import write_phantom
from penumbra.errors import PenumbraError
from penumbra.trained import Trained
from penumbra.types import Modality, Task

EXAMPLES = int(os.environ.get("PENUMBRA_FUZZ", "8"))
REAL = os.environ.get("PENUMBRA_REAL")
SECONDS, BYTES = 10.0, 2 * 2**30


@dataclass(frozen=True)
class Kind:
    """Sound files of one kind, how they are read, and how they go wrong."""

    seeds: tuple[Path, ...]
    read: Callable[[Path], object]
    mutate: mutations.Mutate


def _cohort(modality: Modality) -> Callable[[Path], object]:
    return lambda path: read_cohort(path.parent, modality=modality)


def _copies(found: Iterable[Path], folder: Path, *, largest: int = 200_000) -> list[Path]:
    """Copies that may be damaged; large files would take long to read two hundred times."""
    kept = []
    for number, path in enumerate(p for p in found if p.is_file() and p.stat().st_size < largest):
        place = folder / str(number)
        place.mkdir(parents=True)
        kept.append(Path(shutil.copy(path, place)))
    return kept


def _real(*patterns: str) -> list[Path]:
    """A few real files, spread over those that match."""
    found = [p for pattern in patterns for p in sorted(Path(REAL or "/nowhere").glob(pattern))]
    return found[:: max(1, len(found) // 5)]


def _model(folder: Path) -> Path:
    task = Task("xray", ("xray",), findings=("Edema", "Fracture"))
    settings = tiny(bayes__posterior="none")
    Trained(trained.build(settings, task), task, settings).save(folder)
    return folder


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    folder = tmp_path_factory.mktemp("seeds")
    write_phantom(folder / "mri", modality="mri", cases=4, seed=0, shape=(16, 16, 8))
    write_phantom(folder / "films", modality="xray", cases=4, seed=0, shape=(24, 24))
    image = nibabel.Nifti1Image(np.arange(336, dtype=np.int16).reshape(8, 7, 6), np.eye(4))
    nibabel.save(image, folder / "scan.nii")
    nibabel.save(image, folder / "scan.nii.gz")
    film = np.arange(1200, dtype=np.uint32).reshape(40, 30) % 251
    Image.fromarray(film.astype(np.uint8)).save(folder / "film.png")
    Image.fromarray(film.astype(np.uint8)).save(folder / "film.jpg")
    pixels = "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    head = f"ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementSpacing = 1 1 2\n{pixels}"
    (folder / "scan.mha").write_bytes(head.encode() + bytes(range(24)))
    films = {f"{part}_images": np.zeros((3, 8, 8), np.uint8) for part in ("train", "val", "test")}
    marks = {f"{part}_labels": np.array([[0], [1], [0]]) for part in ("train", "val", "test")}
    (folder / "medmnist").mkdir()
    np.savez(folder / "medmnist" / "toy.npz", **films, **marks)
    for name in ("manifest", "datalist"):
        (folder / name).mkdir()
        shutil.copy(folder / "scan.nii.gz", folder / name)
    listed = ["case,patient,split,ct,Edema", "a,p,train,scan.nii.gz,1", "b,q,test,scan.nii.gz,"]
    (folder / "manifest" / "cases.csv").write_text("\n".join(listed))
    entries = [{"image": "scan.nii.gz", "label": "scan.nii.gz"}]
    named = {"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "CT"}}
    (folder / "datalist" / "dataset.json").write_text(json.dumps(named | {"training": entries}))
    (folder / "config.yaml").write_text(tiny().yaml())
    checkpoint.save(folder / "last.safetensors", nn.Linear(3, 2), record={"step": 1})
    model = _model(folder / "model")
    films_ = _real("*/test/**/*.png", "*/test/**/*.jpg")
    shipped = Path(pydicom.data.__file__).parent / "test_files"
    dicom = ("CT_small", "MR_small_RLE", "MR_small_implicit", "MR_small_jp2klossless", "JPEG2000")
    every: dict[str, tuple[list[Path], Callable[[Path], object], mutations.Mutate]] = {
        "nii": ([folder / "scan.nii"], load_volume, mutations.of_nifti),
        "nii.gz": (
            [folder / "scan.nii.gz", *_copies(_real("*/labelsTr/*.nii.gz"), folder / "real-scans")],
            load_volume,
            mutations.of_packed_nifti,
        ),
        "mha": ([folder / "scan.mha"], load_volume, mutations.of_bytes),
        "film": (
            [folder / "film.png", folder / "film.jpg", *_copies(films_, folder / "real-films")],
            load_volume,
            mutations.of_bytes,
        ),
        "dicom": (
            _copies((shipped / f"{name}.dcm" for name in dicom), folder / "dicom"),
            load_volume,
            mutations.of_bytes,
        ),
        "npz": ([folder / "medmnist" / "toy.npz"], _cohort("xray"), mutations.of_bytes),
        "yaml": ([folder / "config.yaml"], config.load, mutations.of_yaml),
        "json": ([folder / "mri" / "splits.json"], _cohort("mri"), mutations.of_json),
        "csv": ([folder / "mri" / "participants.csv"], _cohort("mri"), mutations.of_table),
        "table": ([folder / "films" / "train.csv"], _cohort("xray"), mutations.of_table),
        "manifest": ([folder / "manifest" / "cases.csv"], _cohort("ct"), mutations.of_table),
        "datalist": ([folder / "datalist" / "dataset.json"], _cohort("ct"), mutations.of_json),
        "checkpoint": (
            [folder / "last.safetensors"],
            checkpoint.read,
            mutations.of_safetensors,
        ),
        "model": ([model / trained.RECORD], lambda p: trained.load(p.parent), mutations.of_json),
        "weights": (
            [model / trained.WEIGHTS],
            lambda p: trained.load(p.parent),
            mutations.of_safetensors,
        ),
    }
    return {name: Kind(tuple(seeds), *rest) for name, (seeds, *rest) in every.items()}


KINDS = ("nii", "nii.gz", "mha", "film", "dicom", "npz", "yaml", "json", "csv", "table")
KINDS += ("manifest", "datalist", "checkpoint", "model", "weights")


def answer(path: Path, read: Callable[[Path], object]) -> str | None:
    """What the reader says; None when it accepts the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about what is damaged
        try:
            read(path)
        except PenumbraError as error:
            return str(error)
    return None


def forbid_pickle(patch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("something was unpickled")

    for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        patch.setattr(name, refuse)


def fuzz(kind: Kind, report: Path) -> None:
    """Read mutated files and report each that is not answered as it should be.

    The report says at every moment which one is being read: ten seconds of computing on it end the
    process, for nothing handles SIGPROF.
    """
    faults: list[str] = []
    whole = {seed: seed.read_bytes() for seed in kind.seeds}
    with pytest.MonkeyPatch.context() as patch:
        forbid_pickle(patch)
        for number in range(EXAMPLES):
            seed = kind.seeds[number % len(kind.seeds)]
            report.write_text(json.dumps({"at": number, "faults": faults}))
            seed.write_bytes(kind.mutate(whole[seed], random.Random(number)))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                said = answer(seed, kind.read)
            except BaseException:
                faults.append(f"{number} {seed.name}: {traceback.format_exc()[-2000:]}")
            else:
                if said is not None and seed.name not in said and str(seed.parent) not in said:
                    faults.append(f"{number} {seed.name}: not named in: {said}")
            finally:
                seed.write_bytes(whole[seed])
    signal.setitimer(signal.ITIMER_PROF, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report.write_text(json.dumps({"at": EXAMPLES, "faults": faults, "peak": peak}))


@pytest.mark.parametrize("name", KINDS)
def test_a_mutated_file_is_read_or_refused_by_name(
    kinds: dict[str, Kind], name: str, start: Start, tmp_path: Path
) -> None:
    for seed in kinds[name].seeds:
        assert answer(seed, kinds[name].read) is None
    begun = resident()
    job = start(lambda: fuzz(kinds[name], tmp_path / "report.json"))
    code, report = job.wait(), json.loads((tmp_path / "report.json").read_text())
    assert not report["faults"], "\n".join(report["faults"])
    assert code == 0, f"ended by {code} at number {report['at']}"
    assert report["peak"] - begun < BYTES


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.fixture
def sound(kinds: dict[str, Kind]) -> dict[str, bytes]:
    return {name: kind.seeds[0].read_bytes() for name, kind in kinds.items()}


def test_a_nifti_header_that_claims_terabytes_is_refused_before_they_are_asked_for(
    sound: dict[str, bytes], tmp_path: Path
) -> None:
    content = bytearray(sound["nii"])
    struct.pack_into("<8h", content, 40, 3, 32767, 32767, 32767, 1, 1, 1, 1)
    path = tmp_path / "huge.nii"
    path.write_bytes(content)
    assert "huge.nii" in str(answer(path, load_volume))


def test_a_small_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path, packed = tmp_path / "bomb.nii.gz", io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as file:
        header = nibabel.Nifti1Image(np.zeros((2, 2, 2), dtype=np.int16), np.eye(4)).to_bytes()
        for _ in range(64):
            file.write(header + bytes(2**20))
    path.write_bytes(packed.getvalue())
    answer(path, load_volume)  # read as the 2 x 2 x 2 that it says, or refused; never unpacked


def test_a_safetensors_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
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


def test_no_source_unpickles() -> None:
    """``weights_only`` included: every tensor that we read is a safetensors file."""
    source = Path(checkpoint.__file__).parent
    words = ("pickle.load", "Unpickler", "torch.load(", "allow_pickle=True", "joblib", "yaml.load(")
    for path in source.rglob("*.py"):
        text = path.read_text()
        assert not [word for word in words if word in text], path
