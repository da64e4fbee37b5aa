"""Overlap and border distances against by-hand cases and MONAI."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import maximum_filter

from penumbra.evaluate import overlap


def blobs(seed: int, shape: tuple[int, ...], cells: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    mask = np.zeros(shape, dtype=bool)
    for _ in range(cells):
        center = rng.uniform(0, shape)
        mask |= ((grid - center) ** 2).sum(-1) < rng.uniform(2, min(shape) / 3) ** 2
    return mask


def one_hot(labels: np.ndarray, classes: int) -> torch.Tensor:
    return torch.stack([torch.from_numpy(labels == c) for c in range(classes)])[None].float()


def test_dice_of_a_known_pair() -> None:
    counts = overlap.confusion(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]), classes=2)
    assert overlap.dice(counts, [1]) == pytest.approx(2 * 2 / (3 + 2))


def test_ignored_voxels_are_not_counted() -> None:
    counts = overlap.confusion(np.array([1, 1, 0]), np.array([1, -1, 0]), classes=2)
    assert counts.tolist() == [[1, 0], [0, 1]]


def test_a_region_is_the_union_of_its_classes() -> None:
    counts = overlap.confusion(np.array([1, 2, 0, 2]), np.array([2, 1, 0, 2]), classes=3)
    assert overlap.dice(counts, [1, 2]) == 1.0
    assert overlap.dice(counts, [1]) == 0.0


@pytest.mark.parametrize(("shape", "seed"), [((40, 31), 0), ((18, 20, 16), 1), ((9, 30, 12), 2)])
def test_dice_equals_monai(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, true = rng.integers(0, 4, shape), rng.integers(0, 4, shape)
    counts = overlap.confusion(predicted, true, classes=4)
    expected = compute_dice(one_hot(predicted, 4), one_hot(true, 4))[0].numpy()
    ours = [overlap.dice(counts, [c]) for c in range(4)]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((40, 31), (1.0, 1.0)), ((18, 20, 16), (1.0, 0.7, 2.5)), ((30, 12, 9), (0.5, 3.0, 1.0))],
)
@pytest.mark.parametrize("seed", range(3))
def test_border_metrics_equal_monai(
    shape: tuple[int, ...], spacing: tuple[float, ...], seed: int
) -> None:
    predicted, true = blobs(seed, shape), blobs(seed + 100, shape)
    apart = overlap.borders(predicted, true, spacing_mm=spacing)
    theirs = [torch.from_numpy(m)[None, None].float() for m in (predicted, true)]
    expected = compute_hausdorff_distance(
        *theirs, include_background=True, percentile=95, spacing=list(spacing)
    )
    assert overlap.hd95(apart) == pytest.approx(float(expected), rel=1e-5)
    expected = compute_surface_dice(
        *theirs, class_thresholds=[2.0], include_background=True, spacing=list(spacing)
    )
    assert overlap.surface_dice(apart, tolerance_mm=2.0) == pytest.approx(float(expected), 1e-5)


def test_a_shifted_square_is_as_far_as_its_shift_in_mm() -> None:
    true = np.zeros((20, 20), dtype=bool)
    true[5:10, 5:10] = True
    apart = overlap.borders(np.roll(true, 3, axis=0), true, spacing_mm=(2.0, 1.0))
    assert max(apart.to_reference.max(), apart.to_prediction.max()) == 6.0
    assert overlap.surface_dice(apart, tolerance_mm=6.0) == 1.0


def test_two_empty_masks_are_undefined_and_one_is_the_worst_case() -> None:
    none, some = np.zeros((3, 4), dtype=bool), np.eye(3, 4, dtype=bool)
    both = overlap.borders(none, none, spacing_mm=(1.0, 1.0))
    assert np.isnan(overlap.hd95(both))
    assert np.isnan(overlap.surface_dice(both, tolerance_mm=1.0))
    assert np.isnan(overlap.dice(overlap.confusion(none * 1, none * 1, classes=2), [1]))
    for one in (
        overlap.borders(some, none, spacing_mm=(1.0, 1.0)),
        overlap.borders(none, some, spacing_mm=(1.0, 1.0)),
    ):
        assert overlap.hd95(one) == 5.0
        assert overlap.surface_dice(one, tolerance_mm=1.0) == 0.0
    assert overlap.dice(overlap.confusion(some * 1, none * 1, classes=2), [1]) == 0.0


def test_the_border_at_the_edge_of_the_scan_is_a_border() -> None:
    assert overlap.border(np.ones((4, 4), dtype=bool)).sum() == 12


def test_the_label_map_is_the_argmax_and_takes_the_first_of_a_tie(
    generator: torch.Generator,
) -> None:
    p = torch.rand(5, 7, 6, generator=generator)
    p[3] = p[1]
    np.testing.assert_array_equal(overlap.label_map(p), p.numpy().argmax(axis=0))


def test_a_label_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"reference: expected class indices -1..1, got 0..2"):
        overlap.confusion(np.array([0, 1]), np.array([0, 2]), classes=2)
    with pytest.raises(ValueError, match="prediction: expected class indices"):
        overlap.confusion(np.array([-1, 1]), np.array([0, 1]), classes=2)


def test_spacing_must_fit_the_axes() -> None:
    mask = np.ones((3, 3), dtype=bool)
    with pytest.raises(ValueError, match="2 positive numbers"):
        overlap.borders(mask, mask, spacing_mm=(1.0, 1.0, 1.0))


@pytest.mark.parametrize("reach", [(0, 0), (1, 3), (7, 2), (50, 4)])
def test_widening_is_a_maximum_filter(reach: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random((31, 40)) < 0.004
    size = [2 * r + 1 for r in reach]
    np.testing.assert_array_equal(
        overlap.widen(mask, reach), maximum_filter(mask, size, mode="constant")
    )
    assert not overlap.widen(np.zeros((3, 3), dtype=bool), (1, 1)).any()


def test_the_bounding_box_is_tight_and_its_margin_stays_in_the_scan() -> None:
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[2, 3:5, 8] = True
    assert overlap.bounding_box(mask) == (slice(2, 3), slice(3, 5), slice(8, 9))
    assert overlap.bounding_box(mask, margin=(3, 1, 1)) == (slice(0, 6), slice(2, 6), slice(7, 9))


def test_an_ignored_voxel_belongs_to_no_region() -> None:
    labels = np.array([-1, 0, 1, 2])
    assert overlap.members_mask(labels, (0, 2), classes=3).tolist() == [False, True, False, True]


@pytest.mark.real
def test_real_organs_moved_by_two_voxels_score_as_in_monai() -> None:
    folder = Path(__file__).parents[2] / ".." / "shared" / "data" / "btcv_mini" / "labelsTr"
    files = sorted(folder.glob("*.nii.gz"))[:1]
    if not files:
        pytest.skip("the real data are not here")
    image = nibabel.load(files[0])
    true = np.asarray(image.dataobj)[::2, ::2, ::2].astype(np.int64)
    spacing = [2 * float(s) for s in image.header.get_zooms()[:3]]
    moved = np.roll(true, 2, axis=0)
    kinds = int(true.max()) + 1
    counts = overlap.confusion(moved, true, classes=kinds)
    hot = one_hot(moved, kinds), one_hot(true, kinds)
    dice = compute_dice(*hot)[0].numpy()
    far = compute_hausdorff_distance(*hot, percentile=95, spacing=spacing)[0].numpy()
    for c in np.unique(true)[1:]:
        apart = overlap.borders(moved == c, true == c, spacing_mm=spacing)
        assert overlap.dice(counts, [int(c)]) == pytest.approx(dice[c], rel=1e-5)
        assert overlap.hd95(apart) == pytest.approx(far[c - 1], rel=1e-5)
