"""Ranking metrics against scikit-learn and by-hand cases."""

import numpy as np
import pytest
from sklearn import metrics as sk

from penumbra.evaluate import ranking


def cases(seed: int, n: int = 200, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(float)
    scores = rng.random(n) + 0.4 * labels
    return (np.round(scores * levels) / levels if levels else scores), labels


@pytest.mark.parametrize("levels", [None, 10, 3])
@pytest.mark.parametrize("seed", range(3))
def test_areas_equal_scikit_learn_with_and_without_ties(seed: int, levels: int | None) -> None:
    scores, labels = cases(seed, levels=levels)
    assert ranking.auroc(scores, labels) == pytest.approx(sk.roc_auc_score(labels, scores))
    assert ranking.average_precision(scores, labels) == pytest.approx(
        sk.average_precision_score(labels, scores)
    )


def test_case_weights_equal_repeated_cases() -> None:
    scores, labels = cases(1, n=40, levels=8)
    counts = np.random.default_rng(0).integers(0, 4, (3, 40))
    for function, weighted in (
        (ranking.auroc, ranking.weighted_auroc),
        (ranking.average_precision, ranking.weighted_average_precision),
    ):
        expected = [function(np.repeat(scores, row), np.repeat(labels, row)) for row in counts]
        np.testing.assert_allclose(weighted(scores, labels, counts.astype(float)), expected)


def test_strata_are_compared_within_themselves_only() -> None:
    scores, labels = cases(1, n=60, levels=8)
    strata = np.repeat([0.0, 1.0, 2.0], 20)
    pairs = [labels[strata == k].sum() * (1 - labels[strata == k]).sum() for k in range(3)]
    apart = [sk.roc_auc_score(labels[strata == k], scores[strata == k]) for k in range(3)]
    found = ranking.stratified_auroc(scores, labels, strata)[0]
    assert found == pytest.approx(np.average(apart, weights=pairs))
    moved = ranking.stratified_auroc(scores + 10 * strata, labels, strata)[0]
    assert moved == pytest.approx(found)  # another fold's network may expect more


def test_labels_that_are_not_stated_change_nothing() -> None:
    scores, labels = cases(2)
    more = np.concatenate([scores, [0.1, 0.9]]), np.concatenate([labels, [np.nan, -1]])
    assert ranking.auroc(*more) == ranking.auroc(scores, labels)


def test_one_class_alone_has_no_area() -> None:
    for labels in (np.zeros(3), np.ones(3), np.full(3, np.nan)):
        assert np.isnan(ranking.auroc(np.arange(3.0), labels))
        assert np.isnan(ranking.average_precision(np.arange(3.0), labels))


def test_an_increasing_map_of_the_scores_changes_nothing() -> None:
    scores, labels = cases(3)
    assert ranking.auroc(np.exp(5 * scores), labels) == ranking.auroc(scores, labels)


def test_the_chosen_threshold_maximises_youden() -> None:
    scores, labels = cases(4)
    fpr, tpr, _ = sk.roc_curve(labels, scores)
    called = scores >= ranking.choose_threshold(scores, labels)
    youden = called[labels == 1].mean() - called[labels == 0].mean()
    assert youden == pytest.approx((tpr - fpr).max())


def test_a_strange_label_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"labels must be 1, 0, -1 or NaN, got \[2.0\]"):
        ranking.auroc(np.arange(2.0), np.array([0.0, 2.0]))


def test_a_missing_score_of_a_stated_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 scores are NaN"):
        ranking.auroc(np.array([0.1, np.nan]), np.array([0.0, 1.0]))
