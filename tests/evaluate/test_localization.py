"""Localization by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from penumbra.evaluate import localization


def square() -> np.ndarray:
    mask = np.zeros((10, 10), dtype=bool)
    mask[2:4, 2:4] = True
    return mask


def test_a_map_equal_to_the_mask_is_perfect() -> None:
    mask = square()
    assert localization.score(mask.astype(float), mask, spacing_mm=(1.0, 1.0)) == {
        "hit": 1.0,
        "iou_otsu": 1.0,
        "iou_tuned": 1.0,
        "auprc": 1.0,
        "centroid_error_mm": 0.0,
        "mass_in_mask": 1.0,
    }


def test_a_constant_map_knows_nothing() -> None:
    scores = localization.score(np.full((10, 10), 0.5), square(), spacing_mm=(1.0, 1.0))
    share = 4 / 100
    assert scores["hit"] == scores["auprc"] == scores["mass_in_mask"] == pytest.approx(share)
    assert scores["iou_otsu"] == scores["iou_tuned"] == 0
    assert scores["centroid_error_mm"] == pytest.approx(np.hypot(2, 2))


def test_an_empty_mask_leaves_every_figure_undefined() -> None:
    scores = localization.score(
        np.random.default_rng(0).random((10, 10)),
        np.zeros((10, 10), dtype=bool),
        spacing_mm=(1.0, 1.0),
    )
    assert np.isnan(list(scores.values())).all()


def test_the_pointing_game_looks_at_the_maximum() -> None:
    shown = np.zeros((10, 10))
    shown[2, 2], shown[8, 8] = 1.0, 0.9
    assert localization.hit(shown, square()) == 1
    shown[8, 8] = 1.1
    assert localization.hit(shown, square()) == 0
    shown[8, 8] = 1.0
    assert localization.hit(shown, square()) == 0.5


def test_intersection_over_union_by_hand() -> None:
    shown = np.zeros((10, 10))
    shown[2:4, 2:6] = 0.6
    assert localization.iou(shown, square(), threshold=0.5) == 0.5
    assert localization.iou(shown, square()) == 0.5


def test_the_precision_recall_area_equals_scikit_learn() -> None:
    shown = np.random.default_rng(1).random((10, 10)) + 0.3 * square()
    assert localization.auprc(shown, square()) == pytest.approx(
        average_precision_score(square().ravel(), shown.ravel())
    )


def test_the_centroid_error_is_in_millimeters_and_ignores_a_constant_offset() -> None:
    shown = np.roll(square(), 3, axis=1).astype(float)
    for offset in (0.0, 5.0):
        error = localization.centroid_error_mm(shown + offset, square(), spacing_mm=(1.0, 2.0))
        assert error == pytest.approx(6.0)


def test_scale_and_offset_of_a_map_change_no_threshold_metric() -> None:
    shown = np.random.default_rng(2).random((10, 10)) + square()
    for threshold in ("otsu", 0.5):
        assert localization.iou(shown, square(), threshold=threshold) == pytest.approx(
            localization.iou(3 * shown + 1, square(), threshold=threshold)
        )


def test_the_tuned_threshold_is_the_best_of_the_grid_on_average() -> None:
    rng = np.random.default_rng(3)
    maps = [rng.random((10, 10)) * 0.5 + 0.4 * square() for _ in range(4)]
    masks = [square()] * 4
    best = localization.tune_threshold(maps, masks)
    means = [
        np.mean([localization.iou(a, m, threshold=t) for a, m in zip(maps, masks, strict=True)])
        for t in localization.GRID
    ]
    assert best == localization.GRID[int(np.argmax(means))]


def test_a_threshold_needs_a_mask() -> None:
    with pytest.raises(ValueError, match="every mask is empty"):
        localization.tune_threshold([np.ones((2, 2))], [np.zeros((2, 2), dtype=bool)])


def test_a_signed_map_is_refused() -> None:
    with pytest.raises(ValueError, match="finite and non-negative"):
        localization.hit(np.full((10, 10), -1.0), square())
