"""A scan's files find their channels by name, as people name files."""

from pathlib import Path

import pytest

from penumbra.errors import DataError
from penumbra.inference.channels import case_of, cases_of
from penumbra.types import Task

TASK = Task("mri", ("FLAIR", "T1", "T1 post"), ("tumour",), {1: 1}, {"tumour": (1,)})


def folder(tmp_path: Path, *names: str) -> Path:
    scan = tmp_path / "scan"
    scan.mkdir()
    for name in names:
        (scan / name).touch()
    return scan


@pytest.mark.parametrize("last", ["x_T1 post.nii.gz", "x-t1post.nii", "T1-Post.mha"])
def test_capitals_and_separators_do_not_matter(tmp_path: Path, last: str) -> None:
    scan = folder(tmp_path, "x_flair.nii.gz", "x_T1.nii.gz", last, "x_seg.nii.gz")
    found = case_of(scan, TASK).images
    assert {channel: path.name for channel, path in found.items()} == {
        "FLAIR": "x_flair.nii.gz",
        "T1": "x_T1.nii.gz",
        "T1 post": last,
    }


@pytest.mark.parametrize("name", ["film.tif", "FILM.PNG", "film.BMP"])
def test_every_format_that_is_read_is_found_and_leaves_the_name(tmp_path: Path, name: str) -> None:
    task = Task("xray", ("radiograph",))
    scan = folder(tmp_path, name)
    assert case_of(scan, task).images == {"radiograph": scan / name}
    assert case_of(scan / name, task).id.lower() == "film"


def test_the_longest_name_wins(tmp_path: Path) -> None:
    scan = folder(tmp_path, "x_post.nii.gz", "x_T1-post.nii.gz")
    found = case_of(scan, Task("mri", ("post", "T1 post"))).images
    assert [path.name for path in found.values()] == ["x_post.nii.gz", "x_T1-post.nii.gz"]


def test_two_files_of_one_channel_are_named(tmp_path: Path) -> None:
    scan = folder(tmp_path, "a_flair.nii.gz", "b_flair.nii.gz")
    with pytest.raises(DataError, match=r"a_flair.nii.gz, b_flair.nii.gz could each be FLAIR"):
        case_of(scan, TASK)


def test_a_folder_without_any_channel_says_how_to_name_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"name the files like scan_FLAIR.nii.gz"):
        case_of(folder(tmp_path, "x_flairy.nii.gz"), TASK)


def test_slices_of_a_series_are_one_image_whatever_their_names(tmp_path: Path) -> None:
    scan = folder(tmp_path, "001_ct.dcm", "002_ct.dcm")
    assert case_of(scan, Task("ct", ("ct",))).images == {"ct": scan}


def test_a_table_lists_cases_in_the_columns_of_the_models_channels(tmp_path: Path) -> None:
    scan = folder(tmp_path, "a_f.nii.gz", "a_1.nii.gz", "b_f.nii.gz", "notes.txt")
    rows = (
        "case,patient,flair,t1_POST,other\na,p,a_f.nii.gz,,\nb,q,b_f.nii.gz,a_1.nii.gz,a_f.nii.gz\n"
    )
    (scan / "cases.csv").write_text(rows)
    first, second = cases_of(scan, TASK)
    assert first.images == {"FLAIR": scan / "a_f.nii.gz"}
    assert second.images == {"FLAIR": scan / "b_f.nii.gz", "T1 post": scan / "a_1.nii.gz"}
    assert [c.id for c in cases_of(scan / "cases.csv", TASK)] == ["a", "b"]


def test_the_only_column_of_a_table_is_the_only_channel(tmp_path: Path) -> None:
    scan = folder(tmp_path, "a.nii.gz")
    (scan / "cases.csv").write_text("case,image\na,a.nii.gz\n")
    assert cases_of(scan, Task("mri", ("t1",)))[0].images == {"t1": scan / "a.nii.gz"}


@pytest.mark.parametrize(
    ("row", "words"),
    [("../a,x.nii.gz", "cannot name files"), ("a,x.nii.gz", "name the columns so")],
)
def test_a_table_that_does_not_fit_the_model_is_named(tmp_path: Path, row: str, words: str) -> None:
    scan = folder(tmp_path, "x.nii.gz")
    (scan / "cases.csv").write_text(f"case,image\n{row}\n")
    with pytest.raises(DataError, match=words):
        cases_of(scan, TASK)
