import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from penumbra.data.phantom import plan, write_phantom
from penumbra.data.phantom_ct import ORGANS
from penumbra.errors import ConfigError, DataError

TINY = {"mri": (16, 16, 8), "ct": (16, 16, 8), "xray": (32, 32)}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("modality", ["mri", "ct", "xray"])
def test_the_same_arguments_write_the_same_bytes(tmp_path: Path, modality) -> None:
    for parent in ("a", "b", "c"):
        (tmp_path / parent).mkdir()
        write_phantom(
            tmp_path / parent / "set",
            modality=modality,
            cases=4,
            seed=3 + (parent == "c"),
            shape=TINY[modality],
            ambiguity=0.3,
        )
    contents = [
        {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
        for root in (tmp_path / "a", tmp_path / "b", tmp_path / "c")
    ]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_mri_is_written_as_brats_writes_it(tmp_path: Path) -> None:
    root = tmp_path / "mri"
    write_phantom(root, modality="mri", cases=6, seed=0, shape=(16, 20, 8))
    splits = json.loads((root / "splits.json").read_text())
    people = rows(root / "participants.csv")
    assert {p["subject"]: p["split"] for p in people} == {
        name: part for part, names in splits.items() for name in names
    }
    assert sorted(splits) == ["test", "train", "val"]
    name = splits["train"][0]
    for channel in ("flair", "t1", "t1ce", "t2", "seg"):
        image = nib.load(root / name / f"{name}_{channel}.nii.gz")
        assert image.shape == (16, 20, 8)
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.get_data_dtype() == (np.uint8 if channel == "seg" else np.int16)
    percent = nib.load(root / "truth" / f"{name}_probability.nii.gz")
    assert percent.shape == (16, 20, 8, 4)
    np.testing.assert_array_equal(np.asarray(percent.dataobj).sum(-1), 100)


def test_ct_is_written_as_the_multi_atlas_challenge_writes_it(tmp_path: Path) -> None:
    root = tmp_path / "ct"
    write_phantom(root, modality="ct", cases=4, seed=0, shape=(24, 20, 8))
    dataset = json.loads((root / "dataset.json").read_text())
    assert dataset["labels"] == {"0": "background"} | {str(v): k for k, v in ORGANS.items()}
    assert len(dataset["training"]) == 4
    for pair in dataset["training"]:
        image, label = (nib.load(root / pair[key]) for key in ("image", "label"))
        np.testing.assert_array_equal(image.affine, label.affine)
        assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
        assert set(np.unique(label.dataobj).tolist()) <= {0, *ORGANS.values()}
        assert np.asarray(image.dataobj).min() < -800


def test_films_are_written_as_chexpert_writes_them(tmp_path: Path) -> None:
    root = tmp_path / "films"
    write_phantom(root, modality="xray", cases=30, seed=0, shape=(32, 32), ambiguity=0.5)
    films = {part: rows(root / f"{part}.csv") for part in ("train", "valid", "test")}
    assert sum(map(len, films.values())) == 30
    patients = {part: {f["Path"].split("/")[2] for f in fs} for part, fs in films.items()}
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["valid"]
    assert any(f["Path"].split("/")[3] == "study2" for fs in films.values() for f in fs)
    seen = {cell for f in films["train"] for cell in list(f.values())[5:]}
    assert seen == {"1.0", "0.0", "-1.0", ""}
    assert {f["Pneumothorax"] for part in ("valid", "test") for f in films[part]} <= {"0.0", "1.0"}
    for fs in films.values():
        for film in fs:
            with Image.open(tmp_path / film["Path"]) as image:
                assert (image.mode, image.size) == ("L", (32, 32))
    sites = {m["Path"]: (m["split"], m["source"]) for m in rows(root / "metadata.csv")}
    assert len(sites) == 30
    assert {split for split, source in sites.values() if source == "site-shift"} == {"test"}
    stated = {f["Path"]: f for fs in films.values() for f in fs}
    for region in rows(root / "regions.csv"):
        with Image.open(tmp_path / region["mask"]) as mask:
            assert mask.mode == "1"
            assert int(np.asarray(mask).sum()) == int(region["pixels"])
        if region["region"] == "pneumothorax":
            assert stated[region["Path"]]["Pneumothorax"] != "0.0"


def test_the_shifted_scanner_is_never_trained_on() -> None:
    plans = plan(40, seed=0, scanners=3, shifted=True, studies=True)
    parts = {p.part for p in plans if p.scanner is None}
    assert parts == {"test"}
    assert {p.scanner for p in plans if p.part == "train"} == {0, 1, 2}
    part_of = {}
    for p in plans:
        assert part_of.setdefault(p.patient, (p.part, p.scanner)) == (p.part, p.scanner)
    assert all(
        p.scanner is not None for p in plan(40, seed=0, scanners=3, shifted=False, studies=True)
    )


@pytest.mark.parametrize("cases", [3, 4, 5, 7, 10])
@pytest.mark.parametrize("studies", [True, False])
def test_every_part_has_someone_however_small_the_cohort(cases: int, studies: bool) -> None:
    plans = plan(cases, seed=0, scanners=2, shifted=True, studies=studies)
    assert {p.part for p in plans} == {"train", "val", "test"}
    assert len({p.seed for p in plans}) == cases


def test_a_cohort_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    root = tmp_path / "x"
    with pytest.raises(ConfigError, match="at least 3"):
        write_phantom(root, modality="mri", cases=2, seed=0)
    with pytest.raises(ConfigError, match="shape"):
        write_phantom(root, modality="mri", cases=4, seed=0, shape=(64, 64))
    with pytest.raises(ConfigError, match="ambiguity"):
        write_phantom(root, modality="ct", cases=4, seed=0, ambiguity=-1.0)
    with pytest.raises(ConfigError, match="scanners"):
        write_phantom(root, modality="ct", cases=4, seed=0, scanners=9)
    assert not root.exists()
    root.mkdir()
    (root / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"x: exists already"):
        write_phantom(root, modality="ct", cases=4, seed=0)
    assert (root / "notes.txt").read_text() == "mine"
