"""Faithfulness on networks whose use of the image is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from penumbra.evaluate import faithfulness

SPOT = (slice(4, 8), slice(4, 8))


def looks_at_the_spot(images: np.ndarray) -> np.ndarray:
    return images[(slice(None), 0, *SPOT)].mean(axis=(1, 2))


def true_map() -> np.ndarray:
    shown = np.zeros((16, 16))
    shown[SPOT] = 1 + np.arange(16).reshape(4, 4) / 100
    return shown


def erase(attention: np.ndarray, mode: str) -> faithfulness.Erasure:
    image = np.ones((1, 16, 16), dtype=np.float32)
    return faithfulness.erase(
        looks_at_the_spot, image, attention, mode=mode, fill=np.zeros_like(image), steps=16
    )


def test_the_true_map_deletes_fast_and_inserts_fast() -> None:
    wrong = 2 - true_map()
    assert erase(true_map(), "deletion").area < 0.1 < 0.9 < erase(wrong, "deletion").area
    assert erase(true_map(), "insertion").area > 0.9 > 0.1 > erase(wrong, "insertion").area


@pytest.mark.parametrize(("mode", "start", "end"), [("deletion", 1, 0), ("insertion", 0, 1)])
def test_the_curve_runs_from_the_image_to_the_fill_or_back(
    mode: str, start: float, end: float
) -> None:
    curve = erase(true_map(), mode)
    assert curve.score[0] == start
    assert curve.score[-1] == end
    assert curve.share[0] == 0
    assert curve.share[-1] == 1


def test_a_constant_map_deletes_everything_halfway() -> None:
    curve = erase(np.full((16, 16), 0.3), "deletion")
    assert curve.area == pytest.approx(0.5, abs=0.05)


def test_any_increasing_transform_of_a_map_gives_the_same_curve() -> None:
    shown = np.random.default_rng(0).random((16, 16))
    assert erase(shown, "deletion").area == erase(np.exp(shown), "deletion").area


def test_a_gate_that_does_nothing_shows_no_drop() -> None:
    p = np.random.default_rng(0).random(20)
    same = faithfulness.gate_ablation(p, p)
    assert (same.drop, same.change, same.flipped) == (0, 0, 0)


def test_a_gate_in_use_costs_confidence_on_both_sides() -> None:
    ablation = faithfulness.gate_ablation(np.array([0.9, 0.1]), np.array([0.6, 0.6]))
    assert ablation.drop == pytest.approx((0.3 + 0.5) / 2)
    assert ablation.change == pytest.approx(0.4)
    assert ablation.flipped == 0.5


def test_a_map_is_like_itself_and_unlike_noise() -> None:
    rng = np.random.default_rng(1)
    shown = gaussian_filter(rng.random((20, 20)), 2)
    same = faithfulness.similarity(shown, 2 * shown + 1)
    assert same.spearman == pytest.approx(1)
    assert same.ssim == pytest.approx(1)
    other = faithfulness.similarity(shown, rng.random((20, 20)))
    assert abs(other.spearman) < 0.3
    assert other.ssim < 0.5


def test_a_map_that_ignores_the_weights_fails_the_randomisation_check() -> None:
    rng = np.random.default_rng(2)
    edges = rng.random((20, 20))
    stubborn = faithfulness.randomisation(lambda k: edges, layers=3)
    honest = faithfulness.randomisation(
        lambda k: edges if k == 0 else rng.random((20, 20)), layers=3
    )
    assert len(stubborn) == len(honest) == 3
    assert all(s.spearman == pytest.approx(1) for s in stubborn)
    assert all(abs(s.spearman) < 0.3 for s in honest)


def test_repeatability_is_the_mean_over_pairs_of_seeds() -> None:
    maps = list(np.random.default_rng(3).random((3, 12, 12)))
    pairs = [faithfulness.similarity(maps[i], maps[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert faithfulness.repeatability(maps).ssim == pytest.approx(np.mean([p.ssim for p in pairs]))
    with pytest.raises(ValueError, match="two maps or more, got 1"):
        faithfulness.repeatability(maps[:1])


@pytest.mark.parametrize("shape", [(2, 9), (5, 5), (8, 8, 8)])
def test_small_grids_and_volumes_are_compared_with_a_window_that_fits(
    shape: tuple[int, ...],
) -> None:
    shown = np.random.default_rng(4).random(shape)
    assert np.isnan(faithfulness.similarity(shown, shown).ssim) == (min(shape) < 3)


def test_at_least_one_step_is_needed() -> None:
    image = np.ones((1, 4, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        faithfulness.erase(looks_at_the_spot, image, image[0], mode="deletion", fill=image, steps=0)
