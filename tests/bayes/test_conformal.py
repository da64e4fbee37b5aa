"""Conformal guarantees: exact ranks on paper, coverage by simulation."""

import math

import numpy as np
import pytest

from penumbra.bayes.conformal import (
    conformal_quantile,
    interval_scores,
    intervals,
    prediction_sets,
    set_scores,
)


def test_the_quantile_is_the_rank_on_paper() -> None:
    scores = np.arange(1.0, 20.0)  # n = 19: rank ceil(20 * 0.9) = 18
    assert conformal_quantile(scores, alpha=0.1) == 18
    assert conformal_quantile(scores[:9], alpha=0.1) == 9
    assert conformal_quantile(scores[:8], alpha=0.1) == math.inf
    with pytest.raises(ValueError, match="alpha=1"):
        conformal_quantile(scores, alpha=1.0)
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        conformal_quantile(np.array([1.0, np.nan]), alpha=0.1)


def coverage_error(hits: int, n: int, alpha: float) -> float:
    """Deviation of a hit count from 1 - alpha, in binomial standard errors."""
    return (hits / n - (1 - alpha)) / math.sqrt(alpha * (1 - alpha) / n)


def test_sets_of_a_miscalibrated_classifier_cover_all_the_same() -> None:
    rng = np.random.default_rng(0)
    alpha, hits, n = 0.1, 0, 2000
    for _ in range(n):
        logit = rng.normal(size=51)
        label = (rng.random(51) < 1 / (1 + np.exp(-logit))).astype(np.int64)
        p = 1 / (1 + np.exp(-(5 * logit - 1)))  # overconfident and biased
        pair = np.stack([1 - p, p], 1)
        quantile = conformal_quantile(set_scores(pair[:50], label[:50]), alpha=alpha)
        hits += bool(prediction_sets(pair[50:], quantile=quantile)[0, label[50]])
    # n = 50 calibration patients: coverage lies in [0.9, 0.9 + 1/51]
    assert coverage_error(hits, n, alpha) > -4
    assert hits / n < 0.9 + 1 / 51 + 4 * math.sqrt(0.09 / n)


def test_volume_intervals_cover_and_never_go_negative() -> None:
    rng = np.random.default_rng(1)
    hits, n = 0, 2000
    for _ in range(n):
        spread = rng.gamma(2.0, 1.0, size=40)
        truth = np.abs(rng.normal(5, 3, size=40))
        predicted = truth + 3 * spread * rng.standard_t(3, size=40)
        scores = interval_scores(predicted[:39], spread[:39], truth[:39], floor=0.1)
        q = conformal_quantile(scores, alpha=0.1)
        low, high = intervals(predicted[39:], spread[39:], quantile=q, floor=0.1)[0]
        assert low >= 0
        hits += bool(low <= truth[39] <= high)
    assert abs(coverage_error(hits, n, 0.1)) < 4
    with pytest.raises(ValueError, match="floor=0"):
        interval_scores(np.ones(1), np.ones(1), np.ones(1), floor=0.0)


def test_too_few_patients_promise_everything() -> None:
    q = conformal_quantile(np.ones(3), alpha=0.1)
    assert intervals(np.ones(1), np.ones(1), quantile=q, floor=1.0).tolist() == [[0, math.inf]]
    assert prediction_sets(np.array([[0.0, 1.0]]), quantile=q).all()
