"""Calibration by hand, against direct sums, and as an additive tally."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from penumbra.evaluate import calibration


def voxels(seed: int, classes: int = 3, shape: tuple[int, ...] = (30, 20)) -> tuple:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.4), size=shape)
    labels = (rng.random(shape)[..., None] > np.cumsum(p, axis=-1)).sum(axis=-1)
    return np.moveaxis(p, -1, 0), labels.clip(0, classes - 1)


def direct_ece(confidence: np.ndarray, hit: np.ndarray, edges: np.ndarray) -> float:
    total = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("seed", range(3))
def test_equal_width_ece_is_the_direct_sum_over_bins(seed: int) -> None:
    p, labels = voxels(seed)
    confidence, hit = p.max(axis=0), p.argmax(axis=0) == labels
    expected = direct_ece(confidence, hit, np.linspace(0, 1, 16))
    assert calibration.ece(calibration.categorical(p, labels)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_equal_mass_ece_agrees_with_sorted_bins(seed: int) -> None:
    p, labels = voxels(seed, shape=(60, 50))
    confidence, hit = p.max(axis=0).ravel(), (p.argmax(axis=0) == labels).ravel()
    order = np.argsort(confidence)
    gaps = [
        abs(hit[b].mean() - confidence[b].mean()) * len(b) / hit.size
        for b in np.array_split(order, 15)
    ]
    tally = calibration.categorical(p, labels)
    assert calibration.ece(tally, scheme="mass") == pytest.approx(sum(gaps), abs=1e-3)
    assert calibration.reliability(tally, scheme="mass").mass == pytest.approx(1 / 15)


def test_proper_scores_equal_their_definitions() -> None:
    p, labels = voxels(0)
    tally = calibration.categorical(p, labels)
    one_hot = np.stack([labels == c for c in range(3)])
    assert calibration.brier(tally) == pytest.approx(((p - one_hot) ** 2).sum(axis=0).mean())
    flat = p.reshape(3, -1).T
    assert calibration.nll(tally) == pytest.approx(sk.log_loss(labels.ravel(), flat), rel=1e-4)


def test_bernoulli_scores_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.01, 0.99, 100)
    labels = (rng.random(100) < p).astype(float)
    tally = calibration.bernoulli(p, labels)
    assert calibration.brier(tally) == pytest.approx(sk.brier_score_loss(labels, p))
    assert calibration.nll(tally) == pytest.approx(sk.log_loss(labels, p))


def test_by_hand_two_bins() -> None:
    p, labels = np.array([0.9, 0.9, 0.9, 0.9, 0.3, 0.3]), np.array([1, 1, 1, 0, 1, 0.0])
    tally = calibration.bernoulli(p, labels)
    assert calibration.ece(tally) == pytest.approx(4 / 6 * 0.15 + 2 / 6 * 0.2)


def test_a_bin_edge_belongs_to_the_bin_that_it_closes_in_either_precision() -> None:
    for dtype in (np.float32, np.float64):
        edges = (np.arange(1, 16) / 15).astype(dtype)
        tally = calibration.bernoulli(edges, np.ones(15))
        assert calibration.reliability(tally).mass == pytest.approx(1 / 15)


def test_honest_probabilities_have_almost_no_calibration_error() -> None:
    p, labels = voxels(5, shape=(300, 300))
    tally = calibration.categorical(p, labels)
    assert calibration.ece(tally) < 0.01
    assert calibration.ece(tally, scheme="mass") < 0.01


def test_tallies_add_up_to_the_tally_of_everything() -> None:
    p, labels = voxels(1)
    whole = calibration.categorical(p, labels)
    halves = calibration.categorical(p[:, :15], labels[:15]) + calibration.categorical(
        p[:, 15:], labels[15:]
    )
    for scheme in ("width", "mass"):
        assert calibration.ece(halves, scheme=scheme) == pytest.approx(
            calibration.ece(whole, scheme=scheme)
        )
    assert calibration.nll(halves) == pytest.approx(calibration.nll(whole))


def test_a_case_scores_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    p, labels = voxels(2)
    whole = calibration.categorical(p, labels)
    monkeypatch.setattr(calibration, "CHUNK", 7)
    pieces = calibration.categorical(p, labels)
    np.testing.assert_allclose(whole.confidence, pieces.confidence)
    assert whole.brier_sum == pytest.approx(pieces.brier_sum)


def test_only_voxels_inside_and_not_ignored_are_tallied() -> None:
    p, labels = voxels(3)
    labels[:3] = -1
    within = np.zeros(labels.shape, dtype=bool)
    within[:10] = True
    tally = calibration.categorical(p, labels, within=within)
    assert tally.n == 7 * 20
    assert calibration.ece(tally) == calibration.ece(
        calibration.categorical(p[:, 3:10], labels[3:10])
    )


def test_class_wise_tallies_are_one_against_the_rest() -> None:
    p, labels = voxels(4)
    for c, tally in enumerate(calibration.classwise(p, labels)):
        assert calibration.ece(tally) == pytest.approx(
            calibration.ece(calibration.bernoulli(p[c], (labels == c).astype(float)))
        )


def test_labels_that_are_not_stated_are_left_out() -> None:
    tally = calibration.bernoulli(np.array([0.2, 0.4, 0.6]), np.array([1.0, np.nan, -1.0]))
    assert tally.n == 1


def test_an_empty_tally_has_no_figures() -> None:
    tally = calibration.empty()
    for figure in (calibration.ece, calibration.brier, calibration.nll):
        assert np.isnan(figure(tally))
    assert np.isnan(calibration.ece(tally, scheme="mass"))


def test_the_weighted_ece_equals_that_of_repeated_cases() -> None:
    rng = np.random.default_rng(0)
    p, labels = rng.random(50), (rng.random(50) < 0.5).astype(float)
    counts = rng.integers(0, 3, (4, 50))
    expected = [
        calibration.ece(calibration.bernoulli(np.repeat(p, row), np.repeat(labels, row)))
        for row in counts
    ]
    np.testing.assert_allclose(
        calibration.weighted_ece(p, labels, counts.astype(float)), expected, rtol=1e-9
    )


def test_one_impossible_event_does_not_make_the_likelihood_infinite() -> None:
    tally = calibration.categorical(torch.tensor([[1.0], [0.0]]), torch.tensor([1]))
    assert calibration.nll(tally) == pytest.approx(-np.log(1e-7))


def test_logits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1 \(logits are not taken\), got -3"):
        calibration.bernoulli(np.array([-3.0, 2.0]), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="must lie in 0"):
        calibration.categorical(np.array([[np.nan], [1.0]]), np.array([1]))


def test_a_class_without_a_probability_is_refused() -> None:
    with pytest.raises(ValueError, match=r"class indices -1\.\.1, got 2\.\.2"):
        calibration.categorical(np.array([[0.5], [0.5]]), np.array([2]))


def test_tallies_of_different_bins_do_not_add() -> None:
    with pytest.raises(ValueError, match="10 and 15 bins"):
        calibration.empty(10) + calibration.empty(15)


def test_sigmoids_are_not_taken_for_class_probabilities() -> None:
    with pytest.raises(ValueError, match="do not sum to 1"):
        calibration.categorical(np.array([[0.9], [0.9]]), np.array([1]))
