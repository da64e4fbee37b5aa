"""Comparing two conditions on the same patients."""

import numpy as np
import pytest

from penumbra.evaluate import comparison
from penumbra.evaluate.protocol import CaseScores

UNSURE = ("uncertainty/epistemic/region", "all")


def cases(dice: float, unsure: float, count: int = 12) -> list[CaseScores]:
    rng = np.random.default_rng(0)
    level = rng.random(count) * 0.1
    return [
        CaseScores(f"{i}", f"p{i}", {("dice", "mean"): dice + level[i], UNSURE: unsure + level[i]})
        for i in range(count)
    ]


def test_a_change_that_every_patient_shares_has_a_narrow_interval() -> None:
    rows = comparison.compare(cases(0.6, 0.5), cases(0.8, 0.1), part="test/shift")
    change = next(r for r in rows if r.metric == "dice_change")
    assert (change.value, change.low, change.high) == pytest.approx((-0.2, -0.2, -0.2))
    assert change.n == 12


def test_a_relative_change_is_a_share_of_the_baseline() -> None:
    rows = comparison.compare(cases(0.4, 0.5), cases(0.8, 0.1), part="x", relative=True)
    change = next(r for r in rows if r.metric == "dice_relative_change")
    assert change.value == pytest.approx(-0.4 / 0.85, abs=0.01)


def test_only_patients_in_both_conditions_count_whatever_their_order() -> None:
    rows = comparison.compare(cases(0.6, 0.5)[:5][::-1], cases(0.8, 0.1), part="x")
    assert {r.n for r in rows} == {5}
    assert rows[0].value == pytest.approx(-0.2)


def test_unusual_cases_that_are_all_more_uncertain_are_all_detected() -> None:
    (row,) = comparison.detect(cases(0.6, 0.5), cases(0.8, 0.1), part="x", samples=200)
    assert (row.metric, row.label, row.value) == ("ood_auroc", UNSURE[0], 1.0)
    (same,) = comparison.detect(cases(0.8, 0.1), cases(0.8, 0.1), part="x", samples=200)
    assert same.value == 0.5


def test_strangers_cannot_be_compared() -> None:
    other = [CaseScores("z", "z", {("dice", "mean"): 0.5})]
    with pytest.raises(ValueError, match="no patient in common"):
        comparison.compare(other, cases(0.8, 0.1), part="x")
