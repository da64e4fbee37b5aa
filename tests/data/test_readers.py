import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from penumbra.data import brats as brats_reader
from penumbra.data.cohort import read_cohort
from penumbra.data.geometry import load_volume
from penumbra.data.scan import read_regions
from penumbra.errors import DataError
from penumbra.types import IGNORE


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("brats_2013_pat0001_1_flair.nii.gz", "flair"),
        ("Brats17_2013_2_1_t1ce.nii.gz", "t1ce"),
        ("BraTS20_Training_001_t2.nii", "t2"),
        ("W39_1998.09.19_Segm.nii", "seg"),
        ("BraTS2021_00006_t1.nii.gz", "t1"),
        ("BraTS-GLI-00000-000-t1n.nii.gz", "t1"),
        ("BraTS-GLI-00000-000-t1c.nii.gz", "t1ce"),
        ("BraTS-GLI-00000-000-t2w.nii.gz", "t2"),
        ("BraTS-GLI-00000-000-t2f.nii.gz", "flair"),
        ("VSD.Brain.XX.O.MR_T1c.54514.mha", "t1ce"),
        ("VSD.Brain.XX.O.MR_Flair.54512.mha", "flair"),
        ("VSD.Brain_3more.XX.O.OT.54517.mha", "seg"),
        ("survival_info.csv", None),
    ],
)
def test_every_brats_release_names_its_sequences(name: str, sequence: str | None) -> None:
    assert brats_reader.sequence_of(Path(name)) == sequence


def test_a_cohort_with_one_label_has_one_class(brats: Path) -> None:
    cohort = read_cohort(brats, modality="mri")
    assert cohort.task.classes == ("background", "tumour")
    assert cohort.task.regions == {"WT": (1,)}
    assert cohort.task.channels == ("t1", "t1ce", "flair")
    assert "t1" not in cohort.cases[3].images


@pytest.mark.parametrize(
    ("style", "raw", "classes"),
    [
        ("{0}_flair", {1: 1, 2: 2, 3: 1, 4: 3}, (1, 2, 4)),
        ("{0}-t2f", {1: 1, 2: 2, 3: 3}, (1, 2, 3)),
    ],
)
def test_sub_regions_follow_the_release(
    tmp_path: Path, write_nifti, style: str, raw: dict[int, int], classes: tuple[int, ...]
) -> None:
    labels = np.zeros((5, 5, 3), dtype=np.uint8)
    labels[:3, 0, 0] = classes
    name = "BraTS-GLI-00001-000"
    seg = "seg" if "-" in style else "_seg"
    write_nifti(tmp_path / "d" / name / f"{style.format(name)}.nii.gz", labels + 1)
    separator = "-" if style.startswith("{0}-") else "_"
    write_nifti(tmp_path / "d" / name / f"{name}{separator}{seg.strip('_')}.nii.gz", labels)
    cohort = read_cohort(tmp_path / "d", modality="mri")
    assert cohort.task.classes == ("background", "core", "oedema", "enhancing")
    assert cohort.task.label_values == {0: 0, **raw}
    assert cohort.task.regions == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    assert cohort.cases[0].patient == "BraTS-GLI-00001"


def test_a_2015_release_in_grade_folders_and_metaimage_is_read(tmp_path: Path, head) -> None:
    image, _ = head((6, 5, 4))
    for number, word in enumerate(["MR_Flair", "MR_T1c", "OT"]):
        stem = f"VSD.Brain.XX.O.{word}.{number}"
        folder = tmp_path / "HGG" / "brats_tcia_pat101_0001" / stem
        folder.mkdir(parents=True)
        array = image if word != "OT" else (image > 300).astype(np.int16)
        header = (
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\n"
            "DimSize = 6 5 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        )
        data = header.encode() + array.astype("<i2").tobytes(order="F")
        (folder / f"{stem}.mha").write_bytes(data)
    cohort = read_cohort(tmp_path, modality="mri")
    assert cohort.task.channels == ("t1ce", "flair")
    assert cohort.cases[0].patient == "brats_tcia_pat101"
    from penumbra.data.geometry import load_volume

    read = load_volume(cohort.cases[0].images["flair"]).array
    np.testing.assert_array_equal(read, image[::-1, ::-1])  # LPS on disk, RAS+ in memory


def test_two_subjects_of_one_name_are_both_read_and_told_apart_by_grade(
    tmp_path: Path, write_nifti, head
) -> None:
    image, _ = head()
    for folder in ("HGG/pat0001_1", "LGG/pat0001_1", "LGG/pat0008_1"):
        name = folder.rpartition("/")[2]
        write_nifti(tmp_path / folder / f"{name}_flair.nii.gz", image)
    cases = read_cohort(tmp_path, modality="mri").cases
    assert [c.id for c in cases] == ["HGG_pat0001_1", "LGG_pat0001_1", "pat0008_1"]
    assert [c.patient for c in cases] == ["HGG_pat0001", "LGG_pat0001", "pat0008"]
    assert len({c.images["flair"] for c in cases}) == 3


def test_participants_and_splits_add_site_protocol_and_part(brats: Path) -> None:
    (brats / "participants.csv").write_text(
        "subject,split,site,protocol\nBraTS2021_00000,train,Oslo,3T\nBraTS2021_00001,test,,\n"
    )
    (brats / "splits.json").write_text(json.dumps({"val": ["BraTS2021_00002"]}))
    cases = read_cohort(brats, modality="mri").cases
    assert (cases[0].part, cases[0].site, cases[0].protocol) == ("train", "Oslo", "3T")
    assert [c.part for c in cases[1:4]] == ["test", "val", None]
    assert cases[1].site is None


def test_a_chexpert_table_gives_findings_views_and_masks(chexpert: Path) -> None:
    cohort = read_cohort(chexpert, modality="xray")
    first, second, third = cohort.cases
    assert cohort.task.findings == ("Lung Opacity", "Edema")
    assert first.findings == {"Lung Opacity": 1.0, "Edema": -1.0}
    assert second.findings == {"Lung Opacity": 0.0}
    assert (first.protocol, second.protocol, third.protocol) == ("AP", "PA", None)
    assert (first.part, third.part) == ("train", "val")
    assert set(first.masks) == {
        "Edema",
        "Lung Opacity/ground_glass_opacities",
        "roi/left_lung",
    }


def organs(root: Path, write_nifti, head, names: list[str]) -> None:
    for k, name in enumerate(names):
        image, labels = head(seed=k)
        write_nifti(root / "imagesTr" / f"{name}.nii.gz", image)
        label = name.replace("img", "label").removesuffix("_0000")
        write_nifti(root / "labelsTr" / f"{label}.nii.gz", labels)


def test_multi_atlas_pairs_by_number_and_bands_slice_thickness(
    tmp_path: Path, write_nifti, head
) -> None:
    organs(tmp_path, write_nifti, head, ["img0001", "img0002"])
    cohort = read_cohort(tmp_path, modality="ct")
    assert [c.id for c in cohort.cases] == ["img0001", "img0002"]
    assert cohort.cases[1].segmentation == tmp_path / "labelsTr" / "label0002.nii.gz"
    assert cohort.task.classes == ("background", "label 1")
    assert {c.protocol for c in cohort.cases} == {"slices 2 to 4 mm"}


def test_msd_reads_its_list_names_and_4d_channels(tmp_path: Path, write_nifti, head) -> None:
    image, labels = head()
    write_nifti(tmp_path / "imagesTr" / "BRATS_001.nii.gz", np.stack([image, image + 1], -1))
    write_nifti(tmp_path / "labelsTr" / "BRATS_001.nii.gz", labels)
    tree = {
        "name": "Task01",
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "edema"},
        "training": [
            {"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}
        ],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(tree))
    cohort = read_cohort(tmp_path, modality="mri")
    assert cohort.name == "Task01"
    assert cohort.task.channels == ("FLAIR", "T1w")
    assert cohort.task.regions == {"edema": (1,)}
    from penumbra.config import Data
    from penumbra.data.preprocess import prepare

    assert prepare(cohort.cases[0], cohort.task, Data()).image.shape[0] == 2


@pytest.mark.parametrize("version", [1, 2])
def test_nnunet_raw_of_both_versions(tmp_path: Path, write_nifti, head, version: int) -> None:
    organs(tmp_path, write_nifti, head, ["liver_1_0000", "liver_2_0000"])
    image, labels = head()
    write_nifti(tmp_path / "imagesTs" / "liver_9_0000.nii.gz", image)
    write_nifti(tmp_path / "labelsTs" / "liver_9.nii.gz", labels)
    write_nifti(tmp_path / "imagesTs" / "unlabelled_0000.nii.gz", image)
    tree = (
        {
            "modality": {"0": "CT"},
            "labels": {"0": "background", "1": "liver"},
            "training": [{"image": "./imagesTr/liver_1.nii.gz", "label": "x"}],
        }
        if version == 1
        else {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "liver": [1, 2], "tumor": 2, "ignore": 3},
            "file_ending": ".nii.gz",
        }
    )
    (tmp_path / "dataset.json").write_text(json.dumps(tree))
    cohort = read_cohort(tmp_path, modality="ct")
    assert [(c.id, c.part) for c in cohort.cases] == [
        ("liver_1", None),
        ("liver_2", None),
        ("liver_9", "test"),
    ]
    if version == 1:
        assert cohort.task.classes == ("background", "liver")
    else:
        assert cohort.task.classes == ("background", "label 1", "tumor")
        assert cohort.task.regions == {"liver": (1, 2), "tumor": (2,)}
        assert cohort.task.label_values == {0: 0, 1: 1, 2: 2, 3: IGNORE}


def test_a_manifest_tells_channels_from_findings(brats: Path) -> None:
    name = "BraTS2021_00000"
    (brats / "cases.csv").write_text(
        "case,patient,T1,FLAIR,segmentation,site,protocol,split,bleeding,mask:bleeding\n"
        f"a,p,{name}/{name}_t1.nii.gz,{name}/{name}_flair.nii.gz,{name}/{name}_seg.nii.gz,"
        f"Oslo,3T,train,1,{name}/{name}_seg.nii.gz\n"
        f"b,q,{name}/{name}_t1ce.nii.gz,,,,,test,-1,\n"
    )
    (brats / "labels.json").write_text('{"0": "background", "1": "clot"}')
    for root in (brats, brats / "cases.csv"):
        cohort = read_cohort(root, modality="mri")
        assert cohort.task.channels == ("T1", "FLAIR")
        assert cohort.task.findings == ("bleeding",)
        assert cohort.task.classes == ("background", "clot")
        first, second = cohort.cases
        assert (first.patient, first.site, first.protocol, first.part) == (
            "p",
            "Oslo",
            "3T",
            "train",
        )
        assert list(first.masks) == ["bleeding"]
        assert second.findings == {"bleeding": -1.0}
        assert second.segmentation is None


def test_a_folder_of_something_else_says_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"no known layout .*expected BraTS subject folders"):
        read_cohort(tmp_path, modality="mri")


def test_an_orphan_label_is_named(tmp_path: Path, write_nifti, head) -> None:
    organs(tmp_path, write_nifti, head, ["img0001", "img0002"])
    (tmp_path / "imagesTr" / "img0002.nii.gz").unlink()
    with pytest.raises(DataError, match=r"label0002\.nii\.gz: no image with the same number"):
        read_cohort(tmp_path, modality="ct")


def test_two_files_for_one_sequence_are_refused(brats: Path) -> None:
    folder = brats / "BraTS2021_00000"
    shutil.copy(folder / "BraTS2021_00000_t1.nii.gz", folder / "copy_t1.nii.gz")
    with pytest.raises(DataError, match=r"copy_t1\.nii\.gz: a second file for 't1'"):
        read_cohort(brats, modality="mri")


def test_an_archive_of_small_films_is_a_cohort(tmp_path: Path) -> None:
    from penumbra.config import Data
    from penumbra.data.store import build

    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 4), ("val", 2), ("test", 2)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count).reshape(-1, 1) % 2
    np.savez(tmp_path / "toymnist.npz", **arrays)
    cohort = read_cohort(tmp_path, modality="xray")
    assert [len(cohort.part(p).cases) for p in ("train", "val", "test")] == [4, 2, 2]
    assert cohort.cases[1].findings == {"positive": 1.0}
    store = build(cohort, Data(patch=(8, 8), image_size=(8, 8)), tmp_path / "store")
    np.testing.assert_allclose(store[1].image[0], arrays["train_images"][1] / 255, atol=1e-3)
    (tmp_path / "toymnist.npz").write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"toymnist\.npz: 'train_images' cannot be read"):
        read_cohort(tmp_path / "toymnist.npz", modality="xray")


def archive(folder: Path, films: tuple[int, ...], labels: tuple[int, ...]) -> Path:
    arrays = {}
    for part in ("train", "val", "test"):
        arrays[f"{part}_images"] = np.arange(np.prod(films), dtype=np.uint8).reshape(films)
        arrays[f"{part}_labels"] = np.zeros(labels, np.uint8)
    np.savez_compressed(folder / "toymnist.npz", **arrays)
    return folder / "toymnist.npz"


def test_an_archive_may_hold_more_pixels_than_one_image_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penumbra.data.volume.MAX_VOXELS", 64)
    cohort = read_cohort(archive(tmp_path, (3, 8, 8), (3, 1)), modality="xray")
    assert len(cohort.cases) == 9
    film = load_volume(cohort.cases[1].images["radiograph"])
    assert film.array[0, 0] == 64
    monkeypatch.setattr("penumbra.data.medmnist.MAX_BYTES", 100)
    with pytest.raises(DataError, match=r"'train_images' takes 192 bytes, more than the 100"):
        read_cohort(tmp_path, modality="xray")


def test_an_archive_whose_films_have_no_label_each_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train_labels is 2x1, train_images 3x8x8; each film"):
        read_cohort(archive(tmp_path, (3, 8, 8), (2, 1)), modality="xray")


def test_an_archive_without_films_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"toymnist\.npz: holds no films"):
        read_cohort(archive(tmp_path, (0, 8, 8), (0, 1)), modality="xray")


def test_a_region_outlined_in_two_pieces_is_both(chexpert: Path) -> None:
    film = "films/train/patient00001/study1/view1_frontal.png"
    append(chexpert / "regions.csv", f"{film},ground_glass_opacities,films/masks/lung.png")
    cohort = read_cohort(chexpert, modality="xray")
    regions = read_regions(cohort.cases[0], cohort.task, (40, 30))
    assert regions[1 + cohort.task.findings.index("Lung Opacity")].all()


def append(table: Path, row: str) -> None:
    table.write_text(table.read_text() + row + "\n")


def test_a_film_without_a_path_is_named_by_its_line(chexpert: Path) -> None:
    append(chexpert / "train.csv", ",Male,50,Frontal,AP,,1.0")
    with pytest.raises(DataError, match=r"train\.csv, line 4: film '' does not exist"):
        read_cohort(chexpert, modality="xray")


def test_a_side_row_without_a_path_belongs_to_no_film(chexpert: Path) -> None:
    before = read_cohort(chexpert, modality="xray")
    append(chexpert / "regions.csv", ",left_lung,films/masks/lung.png")
    append(chexpert / "boxes.csv", ",Edema,1,1,2,2")
    assert read_cohort(chexpert, modality="xray") == before


def test_a_layout_that_is_asked_for_and_not_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"none of train\.csv, .* is there"):
        read_cohort(tmp_path, modality="xray", format="chexpert")


def test_participants_that_name_no_case_are_refused(brats: Path) -> None:
    (brats / "participants.csv").write_text("subject,split\nsub-01,train\n")
    with pytest.raises(DataError, match=r"none of the 6 cases is in its column 'subject'"):
        read_cohort(brats, modality="mri")


def test_an_outline_of_no_finding_is_refused(brats: Path) -> None:
    film = "BraTS2021_00000/BraTS2021_00000_t1.nii.gz"
    table = brats / "cases.csv"
    table.write_text(f"case,image,bleeding,mask:roi,mask:bleding\na,{film},1,{film},{film}\n")
    with pytest.raises(DataError, match=r"column 'mask:bleding' outlines no finding .* bleeding;"):
        read_cohort(brats, modality="mri")
