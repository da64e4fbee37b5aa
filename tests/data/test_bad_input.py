"""Bad input gives one clear line that names file and remedy (Ground, point 6)."""

import contextlib
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from penumbra.config import Data
from penumbra.data.acquisition import protocol_of
from penumbra.data.check import check
from penumbra.data.cohort import read_cohort
from penumbra.data.geometry import load_volume
from penumbra.data.preprocess import prepare
from penumbra.errors import DataError
from penumbra.types import Case, Cohort, Task

CASE = "BraTS2021_00000"


def refused(root: Path, message: str) -> None:
    """Preparing the first case fails with the message, and ``check`` lists the same."""
    cohort = read_cohort(root, modality="mri")
    with pytest.raises(DataError, match=message):
        prepare(cohort.cases[0], cohort.task, Data())
    problems = check(cohort, Data()).problems
    assert any(CASE in p for p in problems)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; check the path"):
        read_cohort(tmp_path / "nowhere", modality="mri")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder is empty; expected a data set"):
        read_cohort(tmp_path, modality="mri")


def test_a_label_of_another_shape(brats: Path, write_nifti) -> None:
    write_nifti(brats / CASE / f"{CASE}_seg.nii.gz", np.ones((24, 20, 5), dtype=np.uint8))
    refused(brats, rf"{CASE}_seg\.nii\.gz: shape 24x20x5 differs from 24x20x6 .*resample")


def test_a_label_at_another_place(brats: Path, write_nifti, head) -> None:
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    affine[0, 3] = 4
    write_nifti(brats / CASE / f"{CASE}_seg.nii.gz", head()[1], affine)
    refused(brats, rf"{CASE}_seg\.nii\.gz: its affine differs .*half a voxel; register")


def test_a_label_value_out_of_range(brats: Path, write_nifti, head) -> None:
    cohort_first = read_cohort(brats, modality="mri")
    assert cohort_first.task.label_values == {0: 0, 1: 1}
    write_nifti(brats / CASE / f"{CASE}_seg.nii.gz", head(value=9)[1])
    refused(brats, rf"{CASE}_seg\.nii\.gz: label value 9 is out of range; the task knows 0, 1")


def test_probabilities_as_labels(brats: Path, write_nifti, head) -> None:
    write_nifti(brats / CASE / f"{CASE}_seg.nii.gz", head()[1].astype(np.float32) * 0.3)
    with pytest.raises(DataError, match=r"label value 0\.3.* is not a whole number"):
        read_cohort(brats, modality="mri")


def test_probabilities_as_labels_of_a_film(tmp_path: Path) -> None:
    path = tmp_path / "soft.tif"
    Image.fromarray(np.full((4, 4), 0.7, np.float32)).save(path)
    with pytest.raises(DataError, match=r"soft\.tif: label value 0\.[67].* is not a whole number"):
        load_volume(path, label=True)


def test_an_image_of_nothing_but_nan(brats: Path, write_nifti) -> None:
    nan = np.full((24, 20, 6), np.nan, dtype=np.float32)
    write_nifti(brats / CASE / f"{CASE}_t1.nii.gz", nan)
    refused(brats, rf"{CASE}_t1\.nii\.gz: every voxel is NaN or infinite; export")


def test_an_empty_image(brats: Path, write_nifti) -> None:
    write_nifti(brats / CASE / f"{CASE}_t1.nii.gz", np.zeros((24, 20, 6), dtype=np.int16))
    refused(brats, rf"{CASE}_t1\.nii\.gz: every voxel is 0, the image is empty")


def test_an_image_with_nothing_but_a_mark_beside_the_body(brats: Path, write_nifti, head) -> None:
    mark = np.zeros(head()[0].shape, np.int16)
    mark[0, 0, 0] = 500
    write_nifti(brats / CASE / f"{CASE}_t1.nii.gz", mark)
    refused(brats, rf"{CASE}_t1\.nii\.gz: every voxel is 0, the image is empty")


def test_some_nan_is_repaired_and_told(brats: Path, write_nifti, head) -> None:
    image = head()[0].astype(np.float32)
    image[3, 3, 3] = np.nan
    write_nifti(brats / CASE / f"{CASE}_t1.nii.gz", image)
    cohort = read_cohort(brats, modality="mri")
    prepared = prepare(cohort.cases[0], cohort.task, Data())
    assert prepared.notes == (f"{CASE}_t1.nii.gz: 1 NaN or infinite voxels set to minimum",)
    assert np.isfinite(prepared.image).all()


def test_a_truncated_file(brats: Path) -> None:
    path = brats / CASE / f"{CASE}_t1.nii.gz"
    path.write_bytes(path.read_bytes()[:-900])
    refused(brats, rf"{CASE}_t1\.nii\.gz: .*(truncated|damaged).*copy it again")


def test_a_file_that_is_no_image(brats: Path) -> None:
    (brats / CASE / f"{CASE}_t1.nii.gz").write_bytes(b"<html>not found</html>")
    refused(brats, rf"{CASE}_t1\.nii\.gz: not a readable NIfTI file")


def test_a_table_without_path_column(chexpert: Path) -> None:
    table = chexpert / "train.csv"
    table.write_text(table.read_text().replace("Path,", "Image,", 1))
    with pytest.raises(DataError, match=r"train\.csv: no column 'Path'; a CheXpert table has"):
        read_cohort(chexpert, modality="xray")


def test_a_patient_in_two_parts(brats: Path) -> None:
    (brats / "participants.csv").write_text(
        f"subject,split,patient\n{CASE},train,Smith\nBraTS2021_00001,test,Smith\n"
    )
    with pytest.raises(DataError, match=r"patient 'Smith' is in train .* and in test .*one part"):
        read_cohort(brats, modality="mri")


def test_a_film_that_does_not_exist(chexpert: Path) -> None:
    table = chexpert / "train.csv"
    table.write_text(table.read_text().replace("patient00002", "patient00009"))
    with pytest.raises(DataError, match=r"train\.csv, line 3: film .* does not exist"):
        read_cohort(chexpert, modality="xray")


def test_a_finding_that_is_neither_stated_nor_blank(chexpert: Path) -> None:
    table = chexpert / "train.csv"
    table.write_text(table.read_text().replace("0.0,", "maybe,"))
    with pytest.raises(DataError, match=r"line 3, Lung Opacity: 'maybe' is not a number"):
        read_cohort(chexpert, modality="xray")


def test_a_split_that_names_an_unknown_case(brats: Path) -> None:
    (brats / "splits.json").write_text(json.dumps({"train": ["nobody"]}))
    with pytest.raises(DataError, match=r"splits\.json: 'nobody' is no case"):
        read_cohort(brats, modality="mri")


def test_a_broken_split_file(brats: Path) -> None:
    (brats / "splits.json").write_text('{"train": [')
    with pytest.raises(DataError, match=r"splits\.json: cannot be read as JSON"):
        read_cohort(brats, modality="mri")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_header_that_claims_more_than_the_file_holds(tmp_path: Path, suffix: str) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape((1000, 1000, 900))
    header.set_data_dtype(np.float32)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    data = header.binaryblock + b"\0" * 200
    path = tmp_path / f"lie{suffix}"
    path.write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
    with pytest.raises(DataError, match=r"the header claims 1000x1000x900 voxels, more than its"):
        load_volume(path)


def test_an_image_beyond_all_bounds(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    path = tmp_path / "huge.nii"
    path.write_bytes(header.binaryblock + b"\0" * 200)
    with pytest.raises(DataError, match=r"huge\.nii: the header claims a size of .* more than"):
        load_volume(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_noise_in_a_nifti_header_never_escapes_as_another_error(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"scan{suffix}"
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    clean = nib.Nifti1Image(array, np.eye(4)).to_bytes()
    rng = np.random.default_rng(0)
    for number in range(120):
        content = bytearray(clean)
        for place in rng.integers(0, 348, 3):
            content[place] = rng.integers(256)
        path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
        with contextlib.suppress(DataError):
            load_volume(path, label=bool(number % 2))


def test_a_png_that_claims_to_be_a_wall(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (16000, 16000)).save(path)
    with pytest.raises(DataError, match=r"bomb\.png: not a readable image"):
        load_volume(path)


def test_a_png_cut_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"cut\.png: cannot be decoded to its end"):
        load_volume(path)


def test_a_label_table_that_is_a_list(tmp_path: Path, write_nifti, head) -> None:
    image, labels = head()
    write_nifti(tmp_path / "imagesTr" / "img1.nii.gz", image)
    write_nifti(tmp_path / "labelsTr" / "label1.nii.gz", labels)
    (tmp_path / "labels.json").write_text('["background", "liver"]')
    with pytest.raises(DataError, match=r"labels\.json: labels must map values to names"):
        read_cohort(tmp_path, modality="ct", format="multiatlas")


def test_an_unknown_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "scan.xyz").write_text("?")
    with pytest.raises(DataError, match=r"scan\.xyz: unknown kind of file; NIfTI"):
        load_volume(tmp_path / "scan.xyz")


def test_the_same_image_in_train_and_test_is_a_problem(brats: Path) -> None:
    other = "BraTS2021_00001"
    for sequence in ("t1", "t1ce", "flair"):
        source = brats / CASE / f"{CASE}_{sequence}.nii.gz"
        (brats / other / f"{other}_{sequence}.nii.gz").write_bytes(source.read_bytes())
    (brats / "splits.json").write_text(json.dumps({"train": [CASE], "test": [other]}))
    report = check(read_cohort(brats, modality="mri"), Data())
    assert any("are the same image in different parts" in p for p in report.problems)


def test_a_sound_cohort_has_no_problems_and_a_table(brats: Path) -> None:
    report = check(read_cohort(brats, modality="mri"), Data())
    assert report.problems == ()
    assert len(report.cases) == 6
    text = "\n".join(report.rows)
    assert "24 x 20 x 6" in text
    assert "channel t1 is missing in 1 case(s)" in text
    assert "disk for the store" in text


@pytest.mark.parametrize("size", [None, (32, 32)])
def test_a_volume_where_radiographs_are_read(
    tmp_path: Path, write_nifti, head, size: tuple[int, int] | None
) -> None:
    case = Case("a", "a", {"film": write_nifti(tmp_path / "a.nii.gz", head()[0])})
    task = Task("xray", ("film",), findings=("Edema",))
    with pytest.raises(DataError, match=r"a\.nii\.gz: a volume, but the task reads radiographs"):
        prepare(case, task, Data(patch=(32, 32), image_size=size))


def test_two_channels_of_one_picture(tmp_path: Path) -> None:
    path = tmp_path / "slice.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    case = Case("a", "a", {"t1": path, "t2": path})
    with pytest.raises(DataError, match=r"slice\.png: several channels name it"):
        prepare(case, Task("mri", ("t1", "t2")), Data(patch=(8, 8)))


def test_capitals_in_a_suffix_are_no_damage(tmp_path: Path, write_nifti, head) -> None:
    file = write_nifti(tmp_path / "scan.nii.gz", np.zeros((40, 40, 20), np.int16))
    shouted = file.rename(tmp_path / "SCAN.NII.GZ")
    assert load_volume(shouted).array.shape == (40, 40, 20)
    assert protocol_of(shouted, "ct") == "slices 2 to 4 mm"


def test_a_film_in_shares_of_its_full_range(tmp_path: Path) -> None:
    shares = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    shares[0, 0] = np.nan
    Image.fromarray(shares).save(tmp_path / "film.tif")
    assert load_volume(tmp_path / "film.tif").full_scale == 1


def test_a_film_beyond_sixteen_bits(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-3, 7], [70_000, 0]], np.int32)).save(tmp_path / "film.tif")
    with pytest.raises(DataError, match=r"film\.tif: grey values from -3 to 70000; expected 0 to"):
        load_volume(tmp_path / "film.tif")


def test_two_films_in_one_file(tmp_path: Path) -> None:
    one, other = (Image.fromarray(np.full((4, 4), k, np.uint8)) for k in (1, 2))
    one.save(tmp_path / "films.tif", save_all=True, append_images=[other])
    with pytest.raises(DataError, match=r"films\.tif: holds 2 pictures; give each a file"):
        load_volume(tmp_path / "films.tif")


def test_the_remedy_for_different_grids_is_one_that_is_not_in_use(
    brats: Path, write_nifti, head
) -> None:
    for sequence in ("t1", "t1ce", "flair", "seg"):
        array = head(value=1)[1 if sequence == "seg" else 0]
        path = brats / CASE / f"{CASE}_{sequence}.nii.gz"
        write_nifti(path, array, np.diag([-9.0, -9.0, 3.0, 1.0]))
    cohort = read_cohort(brats, modality="mri")
    remedy = "set data.spacing_mm"
    assert any(remedy in notice for notice in check(cohort, Data()).notices)
    assert not any(remedy in n for n in check(cohort, Data(spacing_mm=(2.0, 2.0, 3.0))).notices)


def test_films_of_different_sizes_are_brought_to_one_size(tmp_path: Path) -> None:
    cases = []
    for side in (8, 64):
        path = tmp_path / f"{side}.png"
        Image.fromarray(np.arange(side**2).astype(np.uint8).reshape(side, side)).save(path)
        cases.append(Case(path.stem, path.stem, {"film": path}))
    cohort = Cohort("films", Task("xray", ("film",), findings=("Edema",)), tuple(cases))
    notices = check(cohort, Data(patch=(8, 8))).notices
    assert any("set data.image_size" in notice for notice in notices)
