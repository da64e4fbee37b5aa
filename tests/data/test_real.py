"""The small real data sets, where they are at hand."""

from pathlib import Path

import numpy as np
import pytest

from penumbra.config import Data
from penumbra.data.cohort import read_cohort
from penumbra.data.masks import read_mask
from penumbra.data.patches import whole
from penumbra.data.preprocess import Prepared, prepare, restore
from penumbra.data.store import build
from penumbra.types import Cohort, Modality

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not here"),
]


def cohort(name: str, modality: Modality) -> Cohort:
    return read_cohort(DATA / name, modality=modality)


def parts(found: Cohort) -> list[int]:
    return [len(found.part(part).cases) for part in ("train", "val", "test")]


def centre(prepared: Prepared, name: str, found: Cohort) -> np.ndarray:
    index = found.task.classes.index(name)
    return np.argwhere(prepared.segmentation == index).mean(0)


def test_gliomas_of_three_hospitals() -> None:
    found = cohort("lgg_multisite", "mri")
    assert parts(found) == [37, 10, 24]
    assert found.task.classes == ("background", "tumour")
    assert {c.site for c in found.cases} >= {"Thomas Jefferson University", "Henry Ford Hospital"}
    assert "flair" in {c.protocol for c in found.cases}  # what was acquired
    case = next(c for c in found.cases if "t1" not in c.images)
    prepared = prepare(case, found.task, Data())
    assert "t1" in prepared.missing
    assert not prepared.image[0].any()
    tumour = prepared.segmentation == 1
    assert prepared.image[2][tumour].mean() > prepared.image[2][prepared.body & ~tumour].mean()


def test_brats_sub_regions_of_two_label_conventions() -> None:
    found = cohort("brats_mini", "mri")
    assert found.task.channels == ("t1", "t1ce", "t2", "flair")
    for name in ("BraTS2021_00006", "brats_2013_pat0005_1"):
        case = next(c for c in found.cases if c.id == name)
        prepared = prepare(case, found.task, Data())
        assert prepared.segmentation is not None
        back = restore(prepared.segmentation, prepared.geometry)
        import nibabel as nib

        raw = np.asarray(nib.load(case.segmentation).dataobj)
        np.testing.assert_array_equal(np.isin(back, found.task.regions["WT"]), raw > 0)
        np.testing.assert_array_equal(
            np.isin(back, found.task.regions["TC"]), np.isin(raw, (1, 3, 4))
        )
        np.testing.assert_array_equal(np.isin(back, found.task.regions["ET"]), raw == 4)


@pytest.mark.parametrize(("name", "modality"), [("btcv_mini", "ct"), ("chaos_t2_mr", "mri")])
def test_organs_lie_on_their_own_side_in_ras(name: str, modality: Modality) -> None:
    found = cohort(name, modality)
    prepared = prepare(found.cases[0], found.task, Data())
    assert centre(prepared, "liver", found)[0] > centre(prepared, "spleen", found)[0] + 20
    right, left = (centre(prepared, f"{s} kidney", found) for s in ("right", "left"))
    assert right[0] > left[0] + 20
    assert centre(prepared, "liver", found)[2] > right[2]
    share = prepared.body.mean()
    assert 0.4 < share < 0.9
    assert prepared.body[prepared.segmentation > 0].mean() > 0.99


def test_ct_is_in_hounsfield_units_and_bands_its_slices() -> None:
    found = cohort("btcv_mini", "ct")
    assert parts(found) == [13, 3, 6]
    assert {c.protocol for c in found.cases} == {"slices 2 to 4 mm", "slices from 4 mm"}
    prepared = prepare(found.cases[0], found.task, Data())
    liver = prepared.image[0][prepared.segmentation == found.task.classes.index("liver")]
    assert 60 < np.median(liver) < 160


def test_chest_films_with_boxes(tmp_path: Path) -> None:
    found = cohort("nih_cxr14_64px", "xray")
    assert parts(found) == [469, 139, 140]
    assert len({c.patient for c in found.cases}) == 211
    assert len(found.task.findings) == 15
    boxed = [c for c in found.cases if c.masks]
    assert len(boxed) == 7
    few = Cohort(found.name, found.task, tuple(boxed))
    store = build(few, Data(patch=(64, 64), image_size=(64, 64)), tmp_path)
    for index, case in enumerate(store.cases):
        (finding,) = case.masks
        batch = whole(store, index)
        row = 1 + found.task.findings.index(finding)
        assert batch["annotated"][0].nonzero().flatten().tolist() == [row]
        assert 20 < float(batch["masks"][0, row].sum()) < 2000


def test_outlined_regions_unite_into_findings() -> None:
    found = cohort("cxr_covid", "xray")
    assert parts(found) == [130, 38, 63]
    assert {c.protocol for c in found.cases} == {"AP", "PA"}
    outlined = [c for c in found.cases if c.masks]
    assert len(outlined) == 35
    case = next(c for c in outlined if "Lung Opacity/consolidation" in c.masks)
    prepared = prepare(case, found.task, Data(image_size=(128, 128)))
    opacity = 1 + found.task.findings.index("Lung Opacity")
    consolidation = 1 + found.task.findings.index("Consolidation")
    maps = dict(zip(prepared.mapped, prepared.masks, strict=True))
    assert (maps[opacity] >= maps[consolidation]).all()
    assert maps[0].mean() / 255 > 0.1  # the lungs


def test_chexlocalize_run_lengths_agree_with_its_polygons() -> None:
    found = cohort("chexlocalize_sample", "xray")
    case = found.cases[0]
    assert set(case.masks) == {"Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity"}
    polygons = DATA / "chexlocalize_sample" / "gt_annotations_val.json"
    runs = read_mask(case, "Lung Opacity", case.masks["Lung Opacity"], (2320, 2828))
    outline = read_mask(case, "Lung Opacity", polygons, (2320, 2828))
    assert (runs & outline).sum() / (runs | outline).sum() > 0.98
