"""Uncertainty put to use: by hand, by property, and against SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from penumbra.evaluate import selective


def test_the_risk_coverage_curve_of_four_cases_by_hand() -> None:
    curve = selective.risk_coverage(np.array([0.3, 0.1, 0.2, 0.4]), np.array([1.0, 0.0, 0.0, 1.0]))
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(curve.risk, [0, 0, 1 / 3, 0.5])
    assert selective.aurc(np.array([0.3, 0.1, 0.2, 0.4]), np.array([1.0, 0, 0, 1])) == (
        pytest.approx((1 / 3 + 0.5) / 4)
    )


def test_the_perfect_order_has_no_excess_and_any_other_has_some() -> None:
    rng = np.random.default_rng(0)
    risk = rng.random(50)
    assert selective.excess_aurc(np.exp(risk), risk) == pytest.approx(0)
    assert selective.excess_aurc(-risk, risk) > selective.excess_aurc(rng.random(50), risk) > 0


def test_an_uncertainty_that_never_varies_has_the_mean_risk_as_area() -> None:
    risk = np.random.default_rng(0).random(9)
    assert selective.aurc(np.full(9, 0.3), risk) == pytest.approx(risk.mean())


def test_the_order_of_the_cases_changes_nothing_even_with_ties() -> None:
    rng = np.random.default_rng(1)
    unsure, risk = rng.integers(0, 4, 30) / 4, rng.random(30)
    mixed = rng.permutation(30)
    assert selective.aurc(unsure, risk) == pytest.approx(selective.aurc(unsure[mixed], risk[mixed]))


def test_spearman_equals_scipy_with_ties() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 5, 40).astype(float), rng.random(40)
    assert selective.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_spearman_of_a_constant_is_undefined_and_missing_pairs_are_left_out() -> None:
    assert np.isnan(selective.spearman(np.ones(4), np.arange(4.0)))
    assert selective.spearman(np.array([1, 2, np.nan, 3]), np.array([2.0, 3, 9, 5])) == (
        pytest.approx(1)
    )


def test_the_review_budget_by_hand() -> None:
    unsure = np.arange(10) / 10
    failed = np.isin(np.arange(10), [5, 8, 9])
    budget = selective.review_budget(unsure, failed, target=0.1)
    assert budget.share == pytest.approx(0.2)
    assert budget.threshold == 0.8
    assert budget.remaining == pytest.approx(0.1)
    assert budget.random_share == pytest.approx(1 - 0.1 / 0.3)


def test_nothing_is_reviewed_when_few_enough_cases_fail() -> None:
    budget = selective.review_budget(np.arange(4.0), np.zeros(4, dtype=bool))
    assert (budget.share, budget.random_share, budget.threshold) == (0.0, 0.0, np.inf)


def test_cases_of_equal_uncertainty_are_reviewed_together() -> None:
    failed = np.array([True, False, False, False])
    assert selective.review_budget(np.full(4, 0.5), failed, target=0.1).share == 1.0


def test_the_error_auroc_equals_scikit_learn_inside_the_mask() -> None:
    rng = np.random.default_rng(3)
    unsure, wrong = rng.random((8, 9)), rng.random((8, 9)) < 0.3
    within = rng.random((8, 9)) < 0.5
    assert selective.error_auroc(unsure, wrong, within=within) == pytest.approx(
        roc_auc_score(wrong[within], unsure[within])
    )
    assert np.isnan(selective.error_auroc(unsure, np.zeros((8, 9), dtype=bool)))


def test_the_interior_leaves_out_the_rim_and_the_region_takes_it_in() -> None:
    prediction = np.zeros((20, 20), dtype=int)
    prediction[5:12, 5:12] = 1
    unsure = np.zeros((20, 20))
    unsure[5:12, 5:12] = 1.0
    unsure[6:11, 6:11] = 0.1
    assert selective.aggregate(unsure, prediction, how="interior") == pytest.approx(0.1)
    assert selective.aggregate(unsure, prediction, how="volume") == pytest.approx(
        unsure.sum() / 400
    )
    assert 0.1 < selective.aggregate(unsure, prediction, how="region") < 1


@pytest.mark.parametrize("how", selective.AGGREGATIONS)
def test_an_empty_prediction_falls_back_to_the_volume(how: selective.Aggregation) -> None:
    unsure = np.full((6, 6), 0.5)
    unsure[0] = 9.0
    valid = np.ones((6, 6), dtype=bool)
    valid[0] = False
    assert selective.aggregate(unsure, np.zeros((6, 6), dtype=int), how=how, valid=valid) == 0.5


def test_draws_that_agree_do_not_disagree() -> None:
    draw = np.zeros((1, 8, 8), dtype=int)
    draw[0, 2:5, 2:5] = 1
    assert selective.disagreement(np.repeat(draw, 3, axis=0)) == pytest.approx(0)
    assert selective.disagreement(np.zeros((3, 8, 8), dtype=int)) == 0
    apart = np.concatenate([draw, np.roll(draw, 4, axis=1)])
    assert selective.disagreement(apart) == 1


def test_the_disagreement_is_one_minus_the_mean_pairwise_dice() -> None:
    rng = np.random.default_rng(4)
    draws = rng.integers(0, 2, (3, 10, 10))
    dice = [
        2 * (draws[i] * draws[j]).sum() / (draws[i].sum() + draws[j].sum())
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert selective.disagreement(draws) == pytest.approx(1 - np.mean(dice))
    with pytest.raises(ValueError, match="two draws or more, got 1"):
        selective.disagreement(draws[:1])


def test_a_target_that_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.1, got 5"):
        selective.review_budget(np.arange(3.0), np.zeros(3, dtype=bool), target=5.0)


def test_filtering_equals_a_loop_over_thresholds() -> None:
    rng = np.random.default_rng(5)
    unsure, reference = rng.random((12, 12)), rng.random((12, 12)) < 0.4
    prediction = reference ^ (rng.random((12, 12)) < 0.5 * unsure)
    everywhere = np.ones((12, 12), dtype=bool)
    thresholds = np.linspace(0, 1, 41)
    dice, positives, negatives = [], [], []
    for threshold in thresholds:
        kept = unsure <= threshold
        p, r = prediction & kept, reference & kept
        dice.append(2 * (p & r).sum() / (p.sum() + r.sum()) if (p | r).any() else 1.0)
        positives.append(1 - (p & r).sum() / (prediction & reference).sum())
        negatives.append(
            1 - (~prediction & ~reference & kept).sum() / (~(prediction | reference)).sum()
        )
    ours = selective.filtering(unsure, prediction, reference, valid=everywhere)
    areas = [np.trapezoid(curve, thresholds) for curve in (dice, positives, negatives)]
    assert (ours.dice, ours.lost_positives, ours.lost_negatives) == pytest.approx(tuple(areas))
    assert ours.score == pytest.approx((areas[0] + 2 - areas[1] - areas[2]) / 3)


def test_an_uncertainty_on_the_errors_alone_scores_better_than_one_everywhere() -> None:
    rng = np.random.default_rng(6)
    reference = rng.random((20, 20)) < 0.3
    prediction = reference ^ (rng.random((20, 20)) < 0.1)
    everywhere = np.ones((20, 20), dtype=bool)
    honest = (prediction != reference).astype(float)
    scores = [
        selective.filtering(u, prediction, reference, valid=everywhere).score
        for u in (honest, np.ones((20, 20)), 1 - honest)
    ]
    assert scores[0] > max(scores[1:])
    with pytest.raises(ValueError, match=r"uncertainty must lie in 0\.\.1, got 3"):
        selective.filtering(np.full((20, 20), 3.0), prediction, reference, valid=everywhere)


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_weighted_area_equals_that_of_repeated_cases(levels: int) -> None:
    rng = np.random.default_rng(7)
    unsure, risk = rng.integers(0, levels, 20) / levels, rng.random(20)
    counts = rng.integers(0, 4, (5, 20))
    expected = [selective.aurc(np.repeat(unsure, row), np.repeat(risk, row)) for row in counts]
    np.testing.assert_allclose(
        selective.weighted_aurc(unsure, risk, counts.astype(float)), expected
    )
