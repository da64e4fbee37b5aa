import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from penumbra.config import Data
from penumbra.data.geometry import (
    grid_affine,
    load_volume,
    resample,
    resample_labels,
    resampled_shape,
    same_grid,
    weights_1d,
)
from penumbra.data.preprocess import prepare, restore
from penumbra.data.volume import Volume, from_ras, in_ras
from penumbra.errors import DataError
from penumbra.types import Case, Task

AXES = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def oblique(order: tuple[int, ...], signs: tuple[int, ...], degrees: float = 12.0) -> np.ndarray:
    turn = np.deg2rad(degrees)
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation[:, list(order)] * np.array(signs) * (0.9, 1.1, 3.0)
    affine[:3, 3] = (5, -7, 11)
    return affine


@pytest.mark.parametrize(("order", "signs"), AXES)
def test_reorienting_keeps_every_voxel_at_its_place_in_millimetres(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    array = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    volume = in_ras(array, oblique(order, signs), Path("scan.nii"))
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    value = array[1, 2, 3]
    before = volume.file_affine @ (1, 2, 3, 1)
    after = volume.affine @ (*np.argwhere(volume.array == value)[0], 1)
    np.testing.assert_allclose(before, after)
    np.testing.assert_array_equal(from_ras(volume.array, volume.file_affine), array)


def test_an_affine_without_volume_is_refused() -> None:
    with pytest.raises(Exception, match=r"scan\.nii: the header's affine is not usable"):
        in_ras(np.zeros((2, 2, 2)), np.diag([1.0, 0, 1, 1]), Path("scan.nii"))


@given(source=st.integers(1, 40), target=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_interpolation_weights_sum_to_one_and_keep_a_constant(source: int, target: int) -> None:
    weights = weights_1d(source, target).toarray()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert weights.min() >= 0


@pytest.mark.parametrize("target", [5, 10, 20, 37])
def test_upsampling_agrees_with_torch(target: int) -> None:
    array = np.random.default_rng(0).random(10).astype(np.float32)
    reference = torch.nn.functional.interpolate(
        torch.tensor(array)[None, None], size=target, mode="linear", antialias=False
    )
    if target >= 10:
        np.testing.assert_allclose(resample(array, (target,)), reference[0, 0], atol=1e-6)


def test_downsampling_agrees_with_torch_antialiased() -> None:
    array = np.random.default_rng(0).random((12, 18)).astype(np.float32)
    reference = torch.nn.functional.interpolate(
        torch.tensor(array)[None, None], size=(5, 7), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(resample(array, (5, 7)), reference[0, 0], atol=1e-5)


def test_a_ramp_in_millimetres_stays_that_ramp_after_resampling() -> None:
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    index = np.stack(np.meshgrid(*map(np.arange, (12, 10, 8)), indexing="ij"))
    ramp = (index * np.array([2.0, 3.0, 5.0]).reshape(3, 1, 1, 1)).sum(0)
    crop = ((1, 11), (0, 10), (2, 8))
    shape = resampled_shape((10, 10, 6), (2.0, 3.0, 5.0), (1.3, 4.1, 2.2))
    cut = ramp[1:11, 0:10, 2:8]
    new = resample(cut, shape)
    grid = grid_affine(affine, crop, tuple((0, n) for n in shape))
    inner = np.stack(np.meshgrid(*[np.arange(2, n - 2) for n in shape], indexing="ij"))
    mm = np.einsum("ij,jxyz->ixyz", grid[:3, :3], inner) + grid[:3, 3].reshape(3, 1, 1, 1)
    np.testing.assert_allclose(new[2:-2, 2:-2, 2:-2], mm.sum(0), atol=0.03)


def test_resampling_labels_invents_no_class() -> None:
    labels = np.random.default_rng(0).choice([0, 2, 7], size=(9, 8, 5)).astype(np.int16)
    assert set(np.unique(resample_labels(labels, (5, 11, 4)))) <= {0, 2, 7}


def test_labels_are_the_largest_of_the_interpolated_classes() -> None:
    rng = np.random.default_rng(1)
    labels = np.zeros((14, 12, 6), dtype=np.int16)
    labels[2:9, 3:9, 1:5] = rng.choice([1, 2, 3], size=(7, 6, 4))
    for shape in [(7, 6, 6), (20, 17, 9), (5, 30, 1)]:
        shares = np.stack([resample(labels == v, shape) for v in range(4)])
        found = resample_labels(labels, shape)
        chosen = np.take_along_axis(shares, found[None].astype(int), 0)[0]
        np.testing.assert_allclose(chosen, shares.max(0), atol=1e-5)


def test_half_a_voxel_of_offset_is_one_grid_and_more_is_not() -> None:
    array = np.zeros((4, 4, 4), dtype=np.float32)
    grid = np.diag([2.0, 2.0, 2.0, 1.0])
    moved, far = grid.copy(), grid.copy()
    moved[0, 3], far[0, 3] = 0.9, 1.1
    volumes = [Volume(array, g, array.shape, g) for g in (grid, moved, far)]
    assert same_grid(volumes[0], volumes[1])
    assert not same_grid(volumes[0], volumes[2])


@pytest.mark.parametrize(("order", "signs"), AXES[::5])
def test_a_prepared_image_is_restored_to_the_files_own_grid(
    order: tuple[int, ...], signs: tuple[int, ...], tmp_path: Path, write_nifti, head
) -> None:
    image, labels = head((24, 20, 10))
    affine = oblique(order, signs)
    case = Case(
        "a",
        "a",
        {"t1": write_nifti(tmp_path / "a_t1.nii.gz", image, affine)},
        write_nifti(tmp_path / "a_seg.nii.gz", labels, affine),
    )
    task = Task("mri", ("t1",), ("background", "lesion"), {0: 0, 1: 1}, {"lesion": (1,)})
    prepared = prepare(case, task, Data())
    assert prepared.segmentation is not None
    back = restore(prepared.segmentation, prepared.geometry)
    np.testing.assert_array_equal(back, labels)
    np.testing.assert_allclose(prepared.geometry.file_affine, affine)
    maps = restore(np.stack([prepared.image[0], 1 - prepared.image[0]]), prepared.geometry)
    assert maps.shape == (2, *image.shape)
    assert np.corrcoef(maps[0].ravel(), image.ravel())[0, 1] > 0.99


def test_restoring_after_resampling_keeps_shape_and_most_labels(
    tmp_path: Path, write_nifti, head
) -> None:
    image, labels = head((48, 40, 12))
    case = Case(
        "a",
        "a",
        {"t1": write_nifti(tmp_path / "a.nii.gz", image)},
        write_nifti(tmp_path / "s.nii.gz", labels),
    )
    task = Task("mri", ("t1",), ("background", "lesion"), {0: 0, 1: 1}, {"lesion": (1,)})
    prepared = prepare(case, task, Data(spacing_mm=(3.0, 3.0, 3.0)))
    np.testing.assert_allclose(prepared.spacing_mm, 3.0, rtol=0.05)
    back = restore(prepared.segmentation, prepared.geometry)
    assert back.shape == labels.shape
    dice = 2 * ((back == 1) & (labels == 1)).sum() / ((back == 1).sum() + (labels == 1).sum())
    assert dice > 0.85


def test_a_label_picture_with_a_palette_keeps_its_class_numbers(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "labels.png")
    assert load_volume(tmp_path / "labels.png", label=True).array.tolist() == [[0, 1], [2, 2]]


def test_a_4d_file_gives_the_asked_channel(tmp_path: Path, write_nifti) -> None:
    array = np.random.default_rng(0).random((4, 5, 6, 2)).astype(np.float32)
    path = write_nifti(tmp_path / "two.nii.gz", array, np.eye(4))
    np.testing.assert_array_equal(load_volume(path, frame=1).array, array[..., 1])
    with pytest.raises(DataError, match=r"two\.nii\.gz: holds 2 volumes where one is expected"):
        load_volume(path)


def test_a_3d_file_is_not_taken_for_two_channels(tmp_path: Path, write_nifti) -> None:
    path = write_nifti(tmp_path / "one.nii.gz", np.ones((4, 5, 6), np.float32), np.eye(4))
    assert load_volume(path, frame=0).array.shape == (4, 5, 6)
    with pytest.raises(DataError, match=r"one\.nii\.gz: holds 1 channel\(s\), and channel 1 was"):
        load_volume(path, frame=1)
