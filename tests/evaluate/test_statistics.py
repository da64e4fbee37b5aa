"""Intervals, tests and verdicts: by hand, by coverage, and against SciPy."""

import numpy as np
import pytest
from scipy import stats

from penumbra.evaluate import ranking, statistics
from penumbra.evaluate.statistics import Interval


def test_the_interval_of_a_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).normal(size=60)
    ours = statistics.bootstrap(values, samples=4000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1)
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.02)


def test_ninety_five_percent_intervals_hold_the_truth_about_as_often() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        interval = statistics.bootstrap(rng.normal(size=40), samples=300, seed=seed)
        held += interval.low <= 0 <= interval.high
    assert 0.88 <= held / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    values = np.random.default_rng(0).random(20)
    assert statistics.bootstrap(values, seed=3) == statistics.bootstrap(values, seed=3)
    assert statistics.bootstrap(values, seed=3) != statistics.bootstrap(values, seed=4)


def test_ten_copies_of_every_case_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(0).random(15)
    patients = [f"p{i}" for i in range(15)]
    once = statistics.bootstrap(values, patients)
    copied = statistics.bootstrap(np.repeat(values, 10), np.repeat(patients, 10).tolist())
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert copied.n == once.n == 15


def test_missing_values_are_left_out_and_counted() -> None:
    interval = statistics.bootstrap([1.0, float("nan"), 3.0])
    assert (interval.value, interval.n, interval.undefined) == (2.0, 2, 1)


def test_one_patient_shows_no_spread() -> None:
    interval = statistics.bootstrap([1.0, 2.0], ["a", "a"])
    assert interval.value == 1.5
    assert np.isnan([interval.low, interval.high]).all()
    nothing = statistics.bootstrap([float("nan")])
    assert np.isnan(nothing.value)
    assert nothing.n == 0


def test_a_chunked_bootstrap_is_the_same_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(20)
    whole = statistics.bootstrap(values)
    monkeypatch.setattr(statistics, "CHUNK", 1000)
    assert statistics.bootstrap(values) == whole


def test_weighted_statistics_equal_those_of_repeated_cases() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random(40) < 0.5).astype(float)
    rows = np.stack([rng.random(40) + 0.3 * labels, labels], axis=1)
    for weighted, plain in (
        (statistics.auroc, ranking.auroc),
        (statistics.average_precision, ranking.average_precision),
    ):
        repeated = statistics.by_repeating(lambda r, plain=plain: plain(r[:, 0], r[:, 1]))
        one = statistics.bootstrap(rows, statistic=weighted, samples=100)
        two = statistics.bootstrap(rows, statistic=repeated, samples=100)
        assert (one.low, one.value, one.high) == pytest.approx((two.low, two.value, two.high))


def test_pairing_removes_what_both_arms_share() -> None:
    rng = np.random.default_rng(3)
    case = rng.normal(0, 10, 30)
    a, b = case + 1 + rng.normal(0, 0.1, 30), case
    difference = statistics.paired_bootstrap(a, b)
    assert 0.9 < difference.low < difference.high < 1.1


def test_a_relative_gain_is_the_difference_over_the_second_mean() -> None:
    gain = statistics.paired_bootstrap([0.6, 0.6], [0.5, 0.5], relative=True)
    assert gain.value == pytest.approx(0.2)
    nothing = statistics.paired_bootstrap([0.6, 0.6], [0.0, 0.0], relative=True)
    assert np.isnan(nothing.value)


def test_wilcoxon_equals_scipy_and_survives_no_difference() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random(25), rng.random(25)
    assert statistics.wilcoxon(a, b) == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert statistics.wilcoxon(a, a) == 1.0
    assert np.isnan(statistics.wilcoxon([float("nan")], [1.0]))


def test_holm_by_hand_keeps_the_order_and_skips_missing_tests() -> None:
    adjusted = statistics.holm([0.04, float("nan"), 0.01, 0.03])
    np.testing.assert_allclose(adjusted, [0.06, np.nan, 0.03, 0.06])
    np.testing.assert_allclose(statistics.holm([0.9, 0.8]), [1.0, 1.0])
    assert len(statistics.holm([])) == 0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.16, 0.30, "supported"),
        (0.15, 0.30, "supported"),
        (0.10, 0.30, "undecided"),
        (-0.10, 0.14, "not supported"),
        (float("nan"), 0.30, "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, expected: str) -> None:
    assert statistics.verdict(Interval(0.2, low, high, n=10), threshold=0.15) == expected


def test_groups_must_match_the_values() -> None:
    with pytest.raises(ValueError, match="2 values but 3 groups"):
        statistics.bootstrap([1.0, 2.0], ["a", "b", "c"])


def test_trainings_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(5)
    patients = rng.normal(0, 0.1, 30)
    alike = statistics.crossed_bootstrap(patients + np.zeros((3, 1)))
    apart = statistics.crossed_bootstrap(patients + np.array([[-1.0], [0.0], [1.0]]))
    assert alike.value == pytest.approx(apart.value) == pytest.approx(patients.mean())
    assert apart.high - apart.low > 5 * (alike.high - alike.low)


def test_one_training_leaves_the_bootstrap_over_patients() -> None:
    values = np.random.default_rng(6).random((1, 25))
    crossed, plain = statistics.crossed_bootstrap(values), statistics.bootstrap(values[0])
    assert (crossed.low, crossed.high, crossed.n) == pytest.approx((plain.low, plain.high, plain.n))


def test_the_crossed_ratio_is_a_relative_gain_without_missing_entries() -> None:
    b = np.full((2, 5), 0.5)
    gain = np.full((2, 5), 0.1)
    gain[0, 0] = np.nan
    ratio = statistics.crossed_bootstrap(gain, over=b)
    assert ratio.value == pytest.approx(0.2)
    assert ratio.undefined == 1
    with pytest.raises(ValueError, match="5 values but 4 groups"):
        statistics.crossed_bootstrap(gain, ["a"] * 4)
