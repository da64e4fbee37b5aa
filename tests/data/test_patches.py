from pathlib import Path

import pytest
import torch

from penumbra.config import Data
from penumbra.data.cohort import read_cohort
from penumbra.data.patches import Patches, whole
from penumbra.data.preprocess import restore
from penumbra.data.store import Store, build
from penumbra.types import IGNORE


@pytest.fixture
def store(brats: Path, tmp_path: Path) -> Store:
    return build(read_cohort(brats, modality="mri"), Data(), tmp_path / "store")


def test_a_patch_is_a_function_of_seed_and_key_alone(store: Store) -> None:
    settings = Data(patch=(8, 8))
    patches = Patches(store, range(6), settings=settings, seed=3)
    first = {key: patches[key] for key in (0, 5, 17, 100)}
    again = Patches(store, range(6), settings=settings, seed=3)
    for key in (100, 0, 17, 5):
        for name, value in first[key].items():
            torch.testing.assert_close(again[key][name], value, rtol=0, atol=0)
    other = Patches(store, range(6), settings=settings, seed=4)
    assert any(not torch.equal(other[k]["image"], first[k]["image"]) for k in first)


def test_every_epoch_meets_every_case_once_in_another_order(store: Store) -> None:
    patches = Patches(store, [1, 3, 4, 5], settings=Data(patch=(8, 8)), seed=0)
    epochs = [[int(patches[4 * e + k]["case"]) for k in range(4)] for e in range(4)]
    assert all(sorted(e) == [1, 3, 4, 5] for e in epochs)
    assert len({tuple(e) for e in epochs}) > 1


@pytest.mark.parametrize("patch", [(8, 8), (40, 40), (16, 30)])
def test_what_lies_beyond_the_scan_is_marked(store: Store, patch: tuple[int, int]) -> None:
    item = Patches(store, [0], settings=Data(patch=patch), seed=0)[0]
    size = store[0].geometry.shape[:2]
    assert item["image"].shape == (3, *patch)
    inside = [min(p, s) for p, s in zip(patch, size, strict=True)]
    assert int(item["valid"].sum()) == inside[0] * inside[1]
    outside = ~item["valid"]
    assert (item["segmentation"][outside] == IGNORE).all()
    assert (item["image"][:, outside] == 0).all()
    assert not item["body"][outside].any()


def test_foreground_patches_hold_the_structure(store: Store) -> None:
    always = Patches(store, range(6), settings=Data(patch=(8, 8), foreground=1.0), seed=0)
    assert all((always[k]["segmentation"] == 1).any() for k in range(30))
    never = Patches(store, range(6), settings=Data(patch=(8, 8), foreground=0.0), seed=0)
    assert not all((never[k]["segmentation"] == 1).any() for k in range(30))


def test_three_dimensional_patches_use_the_same_code(brats: Path, tmp_path: Path) -> None:
    settings = Data(dim=3, patch=(8, 8, 4))
    store = build(read_cohort(brats, modality="mri"), settings, tmp_path / "store")
    item = Patches(store, range(6), settings=settings, seed=0)[7]
    assert item["image"].shape == (3, 8, 8, 4)
    assert item["masks"].shape == (1, 8, 8, 4)
    assert item["position"].shape == (3,)
    batch = whole(store, 0)
    assert batch["image"].shape == (1, 3, *store[0].geometry.shape)


def test_a_missing_channel_is_zero(store: Store) -> None:
    assert store[3].missing == ("t1",)
    assert not whole(store, 3)["image"][:, 0].any()


def test_whole_cases_are_all_slices_and_stack_back(store: Store) -> None:
    batch = whole(store, 1)
    shape = store[1].geometry.shape
    assert batch["image"].shape == (shape[2], 3, *shape[:2])
    assert batch["case"].tolist() == [1] * shape[2]
    assert bool(batch["valid"].all())
    position = batch["position"][:, -1]
    assert (position.diff() > 0).all()
    assert 0 < position[0] < position[-1] < 1
    back = restore(batch["segmentation"].movedim(0, -1).numpy(), store[1].geometry)
    assert back.shape == store[1].geometry.file_shape
    assert back.sum() == store[1].segmentation.sum()


def test_segmented_cases_annotate_the_first_map(store: Store) -> None:
    item = Patches(store, [0], settings=Data(patch=(8, 8), foreground=1.0), seed=0)[0]
    assert item["annotated"].tolist() == [True]
    torch.testing.assert_close(item["masks"][0], (item["segmentation"] > 0).float())


def test_films_carry_findings_masks_and_letterbox(chexpert: Path, tmp_path: Path) -> None:
    settings = Data(patch=(32, 32), image_size=(32, 32))
    store = build(read_cohort(chexpert, modality="xray"), settings, tmp_path / "store")
    batch = whole(store, 0)
    assert batch["image"].shape == (1, 1, 32, 32)
    assert batch["masks"].shape == (1, 3, 32, 32)
    assert batch["annotated"].tolist() == [[True, True, True]]
    torch.testing.assert_close(batch["findings"], torch.tensor([[1.0, -1.0]]))
    columns = batch["valid"][0].any(0)
    assert int(columns.sum()) == 24
    assert bool(columns[4:28].all())
    assert "segmentation" not in batch
    second = whole(store, 1)
    assert second["annotated"].tolist() == [[False, False, False]]
    assert torch.isnan(second["findings"][0, 1])
    # region 10:20 x 5:15 of 40 x 30, scaled by 0.8 and moved 4 columns
    region = batch["masks"][0, 1]
    assert float(region[9:15, 9:15].mean()) == pytest.approx(1)
    assert float(region.sum()) == pytest.approx(10 * 10 * 0.64, rel=0.05)
    assert float(batch["image"].min()) >= 0
    assert float(batch["image"].max()) <= 1
    back = restore(batch["image"][0, 0].numpy(), store[0].geometry)
    assert back.shape == (40, 30)


def test_batches_collate(store: Store) -> None:
    patches = Patches(store, range(6), settings=Data(patch=(8, 8)), seed=0)
    batch = torch.utils.data.default_collate([patches[k] for k in range(4)])
    assert batch["image"].shape == (4, 3, 8, 8)
    assert batch["image"].dtype == torch.float32
    assert batch["segmentation"].dtype == torch.int64
    assert batch["case"].shape == batch["protocol"].shape == batch["patient"].shape == (4,)
    assert batch["body"].dtype == batch["valid"].dtype == torch.bool


def test_an_empty_part_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="no cases to draw patches from"):
        Patches(store, [], settings=Data(), seed=0)
