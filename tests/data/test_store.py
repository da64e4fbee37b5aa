import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from penumbra.config import Data
from penumbra.data import store as stores
from penumbra.data.cohort import read_cohort
from penumbra.data.preprocess import prepare
from penumbra.errors import DataError, WriteError
from penumbra.files import building
from penumbra.types import Case, Cohort, Task


@pytest.fixture
def cohort(brats: Path) -> Cohort:
    return read_cohort(brats, modality="mri")


def written(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}


def test_the_store_gives_back_what_was_prepared(cohort: Cohort, tmp_path: Path) -> None:
    store = stores.build(cohort, Data(), tmp_path / "store")
    assert [c.id for c in store.cases] == [c.id for c in cohort.cases]
    for index in range(len(store)):
        fresh, kept = prepare(cohort.cases[index], cohort.task, Data()), store[index]
        np.testing.assert_allclose(kept.image, fresh.image, atol=1e-3)
        np.testing.assert_array_equal(kept.segmentation, fresh.segmentation)
        np.testing.assert_array_equal(kept.body, fresh.body)
        np.testing.assert_array_equal(kept.foreground, fresh.foreground)
        assert kept.geometry.crop == fresh.geometry.crop
        np.testing.assert_allclose(kept.geometry.affine, fresh.geometry.affine)
        assert (kept.body_box, kept.missing) == (fresh.body_box, fresh.missing)


def test_arrays_are_mapped_with_contiguous_axial_slices(cohort: Cohort, tmp_path: Path) -> None:
    image = stores.build(cohort, Data(), tmp_path / "store")[0].image
    assert isinstance(image.base, np.memmap)
    assert image[..., 2].flags.f_contiguous


def test_a_second_build_writes_nothing_and_a_changed_file_one_case(
    cohort: Cohort, tmp_path: Path, write_nifti, head
) -> None:
    folder = tmp_path / "store"
    stores.build(cohort, Data(), folder)
    before = written(folder)
    stores.build(cohort, Data(), folder)
    assert written(folder) == before
    write_nifti(cohort.cases[0].images["flair"], head(seed=99)[0])
    stores.build(cohort, Data(), folder)
    assert len(written(folder)) == len(before) + 1


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        (Data(spacing_mm=(3.0, 3.0, 3.0)), False),
        (Data(patch=(64, 64)), True),
        (Data(foreground=0.1, uncertain="ones", workers=2), True),
    ],
)
def test_only_settings_that_shape_the_arrays_change_the_key(
    cohort: Cohort, settings: Data, same: bool
) -> None:
    case = cohort.cases[0]
    key = stores.key_of(case, cohort.task, Data())
    assert (stores.key_of(case, cohort.task, settings) == key) is same


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "meta"])
def test_a_damaged_case_is_found_and_built_again(cohort: Cohort, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "store"
    expected = np.array(stores.build(cohort, Data(), folder)[0].image)
    place = folder / stores.key_of(cohort.cases[0], cohort.task, Data())
    target = place / ("meta.json" if harm == "meta" else "image.npy")
    content = bytearray(target.read_bytes())
    match harm:
        case "flip":
            content[-5] ^= 255
            target.write_bytes(content)
        case "cut":
            target.write_bytes(content[:-100])
        case "remove":
            target.unlink()
        case "meta":
            target.write_text("{}")
    assert not stores.is_whole(place)
    np.testing.assert_array_equal(stores.build(cohort, Data(), folder)[0].image, expected)


def test_what_a_killed_build_left_behind_is_not_used(cohort: Cohort, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    place = folder / stores.key_of(cohort.cases[0], cohort.task, Data())
    place.mkdir(parents=True)
    (place / "image.npy").write_bytes(b"half")
    assert len(stores.build(cohort, Data(), folder)) == 6
    assert stores.is_whole(place)
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_what_killed_builds_left_is_removed_and_what_living_ones_hold_is_not(
    cohort: Cohort, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()

    def begun() -> int:
        """A process that is in the middle of writing a case."""
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            with building(folder / "abc") as half:
                (half / "image.npy").touch()
                os.write(tell, b"!")
                signal.pause()
        os.read(told, 1)
        return child

    killed, living = begun(), begun()
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    stores.build(cohort, Data(), folder)
    left = {p.name.split(".")[2] for p in folder.glob(".*")}
    os.kill(living, signal.SIGKILL)
    os.waitpid(living, 0)
    assert left == {str(living)}
    stores.build(cohort, Data(), folder)
    assert not list(folder.glob(".*"))


def test_an_unreadable_case_stops_or_is_skipped_and_told(cohort: Cohort, tmp_path: Path) -> None:
    cohort.cases[2].images["t1"].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"BraTS2021_00002_t1\.nii\.gz: not a readable"):
        stores.build(cohort, Data(), tmp_path / "a")
    store = stores.build(cohort, Data(on_error="skip"), tmp_path / "b")
    assert len(store) == 5
    assert "not a readable NIfTI" in store.skipped["BraTS2021_00002"]


def test_a_store_that_cannot_be_written_says_so(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file/store: cannot be created"):
        stores.build(cohort, Data(), tmp_path / "file" / "store")


def test_a_full_disk_is_no_unreadable_case(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stores, "_fill", full)
    with pytest.raises(WriteError, match=r"cannot be written \(No space left on device\)"):
        stores.build(cohort, Data(on_error="skip"), tmp_path)


def test_masks_that_change_places_change_the_key(cohort: Cohort) -> None:
    case = cohort.cases[0]
    one, other = case.images["t1"], case.images["flair"]
    first = replace(case, masks={"a": one, "b": other})
    second = replace(case, masks={"b": one, "a": other})
    keys = {stores.key_of(c, cohort.task, Data()) for c in (first, second)}
    assert len(keys) == 2


def test_findings_and_parts_come_from_the_cohort_not_from_the_disk(
    chexpert: Path, tmp_path: Path
) -> None:
    cohort = read_cohort(chexpert, modality="xray")
    settings = Data(image_size=(20, 20))
    stores.build(cohort, settings, tmp_path / "store")
    first = replace(cohort.cases[0], part="test", findings={"Edema": 1.0})
    changed = replace(cohort, cases=(first, *cohort.cases[1:]))
    store = stores.build(changed, settings, tmp_path / "store")
    assert store[0].case.part == "test"
    np.testing.assert_array_equal(store[0].findings, [np.nan, 1.0])


def test_protocols_and_patients_are_sorted_labels(chexpert: Path, tmp_path: Path) -> None:
    cohort = read_cohort(chexpert, modality="xray")
    store = stores.build(cohort, Data(image_size=(20, 20)), tmp_path / "store")
    assert store.protocols == ("AP", "PA")
    assert store.patients == ("patient00001", "patient00002", "patient00003")
    assert store.indices("train") == (0, 1)
    assert store.indices(None) == (0, 1, 2)


def test_a_store_travels_to_a_loader_process_without_its_maps(
    cohort: Cohort, tmp_path: Path
) -> None:
    store = stores.build(cohort, Data(), tmp_path / "store")
    size = len(pickle.dumps(store))
    for index in range(len(store)):
        store[index]
    assert len(pickle.dumps(store)) == size


def test_few_cases_stay_open(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_OPEN", 2)
    store = stores.build(cohort, Data(), tmp_path / "store")
    for index in (0, 1, 2, 3, 2):
        store[index]
    assert list(store._open) == [3, 2]


def test_what_half_precision_cannot_hold_is_cut_and_told(tmp_path: Path, write_nifti, head) -> None:
    hot = head()[0].astype(np.float32)
    hot[12, 10, 3] = 70_000
    file = write_nifti(tmp_path / "ct.nii.gz", hot)
    case = Case("ct", "ct", {"ct": file}, part="train")
    store = stores.build(Cohort("c", Task("ct", ("ct",)), (case,)), Data(), tmp_path / "store")
    assert float(np.asarray(store[0].image).max()) == 65_504
    assert store[0].notes == (
        "ct.nii.gz: 1 voxels above 65504 set to it; are these Hounsfield units?",
    )
