from pathlib import Path

import numpy as np
import pytest

from penumbra.bayes.mahalanobis import Strangeness
from penumbra.inference.decision import Signs, decide
from penumbra.inference.triage import held_out_referral, referral
from penumbra.trained import Calibration

LIMIT = Calibration(review_above=0.01, thresholds={"effusion": 0.5})


@pytest.mark.parametrize(
    ("signs", "verdict", "word"),
    [
        (Signs(0.001, 0.0), "accept", "within the limit"),
        (Signs(0.02, 0.0), "review", "above the limit"),
        (Signs(0.001, 0.0, empty=True), "review", "none of the structures"),
        (Signs(0.001, 0.0, missing=("t1",), channels=4), "review", "lacks t1"),
        (Signs(0.001, 0.0, notes=("3 NaN voxels",)), "review", "3 NaN voxels"),
        (Signs(0.001, 0.6), "reject", "mean Dice of only 0.40"),
        (Signs(0.001, 0.0, missing=("a", "b", "c"), channels=4), "reject", "3 of 4 channels"),
        (Signs(float("nan"), 0.0), "reject", "not a number"),
        (Signs(None, 0.0, findings={"effusion": (0.55, 0.05)}), "review", "cannot be told"),
        (Signs(None, 0.0, findings={"effusion": (0.9, 0.05)}), "accept", "no rule"),
    ],
)
def test_each_sign_has_its_verdict_and_its_words(signs: Signs, verdict: str, word: str) -> None:
    decision = decide(signs, LIMIT)
    assert decision.verdict == verdict
    assert word in " ".join(decision.reasons)


def test_need_of_review_ranks_verdicts_first_and_then_uncertainty() -> None:
    signs = [Signs(0.001, 0.0), Signs(0.009, 0.0), Signs(0.02, 0.0), Signs(0.5, 0.0)]
    needs = [decide(s, LIMIT).need for s in [*signs, Signs(0.0, 0.9)]]
    assert needs == sorted(needs)


def test_a_run_without_a_limit_accepts_but_says_that_no_rule_spoke() -> None:
    decision = decide(Signs(0.3, 0.1), Calibration())
    assert decision.verdict == "accept"
    assert "no rule asks" in decision.reasons[0]


def test_the_referral_curve_falls_from_all_errors_to_none() -> None:
    unsure = np.array([0.1, 0.4, 0.4, 0.2, 0.9])
    failed = np.array([False, True, False, False, True])
    curve = referral(unsure, failed)
    assert curve.remaining[0] == pytest.approx(0.4)
    assert curve.remaining[-1] == 0
    assert list(curve.remaining) == sorted(curve.remaining, reverse=True)
    assert curve.needed[0.2] == pytest.approx(0.2)
    assert curve.needed[0.01] == pytest.approx(0.6)


def test_the_referral_curve_reads_the_test_cases_of_the_run(tmp_path: Path) -> None:
    assert held_out_referral(tmp_path) is None
    (tmp_path / "cases.csv").write_text(
        "case,part,dice,uncertainty/epistemic/region\n"
        "a,test,0.9,0.01\nb,test,0.3,0.5\nc,val,0.1,0.6\nd,test,,0.2\n"
    )
    curve = held_out_referral(tmp_path)
    assert curve is not None
    assert (curve.cases, curve.errors) == (2, 1)
    assert curve.needed[0.05] == 0.5


def test_cases_are_ranked_by_the_disagreement_where_it_ranked_validation_cases() -> None:
    chosen = Calibration(ranked_by="disagreement", review_above=0.1)
    assert decide(Signs(0.9, 0.05), chosen).verdict == "accept"
    decision = decide(Signs(0.0, 0.2), chosen)
    assert decision.reasons[0].startswith("disagreement between draws 0.2 is above the limit 0.1")


def test_a_scan_farther_than_every_validation_scan_says_how_often_that_happens() -> None:
    strange = Signs(0.001, 0.0, strangeness=Strangeness(2.5, 9, 9))
    decision = decide(strange, LIMIT)
    assert decision.verdict == "review"
    assert "a familiar scan does so once in 10" in decision.reasons[0]
    usual = Signs(0.001, 0.0, strangeness=Strangeness(1.0, 8, 9))
    assert decide(usual, LIMIT).verdict == "accept"


def test_the_referral_curve_uses_the_first_score_that_varies(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(
        "case,part,dice,uncertainty/disagreement,uncertainty/epistemic/region\n"
        "a,test,0.9,0.1,0.5\nb,test,0.3,0.6,0.01\n"
    )
    curve = held_out_referral(tmp_path)
    assert curve is not None
    assert curve.needed[0.05] == 0.5
