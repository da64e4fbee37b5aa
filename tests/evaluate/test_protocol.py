"""The protocol from arrays to rows."""

import json

import numpy as np
import pytest
import torch

from penumbra.evaluate import findings, protocol, segmentation

REGIONS = {"whole": (1, 2), "core": (2,)}


def case(seed: int, shape: tuple[int, ...] = (24, 20)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = np.zeros(shape, dtype=np.int64)
    reference[tuple(slice(n // 4, n // 2) for n in shape)] = 1
    reference[tuple(slice(n // 3, n // 2) for n in shape)] = 2
    logits = 3 * np.stack([reference == c for c in range(3)]) + rng.normal(0, 1.5, (3, *shape))
    p = np.exp(logits)
    return p / p.sum(axis=0), reference


def scored(seed: int) -> dict[tuple[str, str], float]:
    p, reference = case(seed)
    uncertainty = {"total": 1 - np.square(p).sum(axis=0)}
    return segmentation.score_segmentation(
        p, reference, regions=REGIONS, spacing_mm=(1.0, 2.0), uncertainty=uncertainty
    )


def test_a_perfect_certain_prediction_has_perfect_scores() -> None:
    _, reference = case(0)
    p = np.stack([reference == c for c in range(3)]).astype(float)
    scores = segmentation.score_segmentation(p, reference, regions=REGIONS, spacing_mm=(1.0, 1.0))
    for name in ("whole", "core", "mean"):
        assert scores["dice", name] == 1
        assert scores["hd95_mm", name] == 0
        assert scores["surface_dice", name] == 1
    assert scores["ece", "all"] == scores["brier", "all"] == scores["nll", "all"] == 0


@pytest.mark.parametrize("shape", [(24, 20), (12, 14, 10)])
def test_torch_and_numpy_score_alike_in_two_and_three_dimensions(shape: tuple[int, ...]) -> None:
    p, reference = case(1, shape)
    rest = {"regions": REGIONS, "spacing_mm": [1.0] * len(shape)}
    ours = segmentation.score_segmentation(p, reference, **rest)
    theirs = segmentation.score_segmentation(
        torch.from_numpy(p), torch.from_numpy(reference), **rest
    )
    assert ours == pytest.approx(theirs, nan_ok=True)


def test_predictions_in_ignored_voxels_change_no_figure() -> None:
    p, reference = case(2)
    reference[:, -4:] = -1
    other = p.copy()
    other[:, :, -4:] = np.array([0.0, 0.0, 1.0])[:, None, None]
    kept = {"regions": REGIONS, "spacing_mm": (1.0, 1.0)}
    one = segmentation.score_segmentation(p, reference, **kept)
    two = segmentation.score_segmentation(other, reference, **kept)
    assert one == pytest.approx(two, nan_ok=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_welcome(dtype: torch.dtype) -> None:
    p, reference = case(6)
    kept = {"regions": REGIONS, "spacing_mm": (1.0, 1.0)}
    half = segmentation.score_segmentation(torch.from_numpy(p).to(dtype), reference, **kept)
    full = segmentation.score_segmentation(p, reference, **kept)
    assert half["brier", "all"] == pytest.approx(full["brier", "all"], abs=0.01)


def test_a_case_scores_the_same_alone_in_a_batch_and_in_any_memory_layout() -> None:
    batch = [case(seed, (12, 14, 10)) for seed in range(3)]
    p = np.stack([b[0] for b in batch], axis=-1)  # the case axis last: no case is contiguous
    reference = np.stack([b[1] for b in batch], axis=-1)
    kept = {"regions": REGIONS, "spacing_mm": (1.0, 1.0, 2.0)}
    for i, (alone, truth) in enumerate(batch):
        expected = segmentation.score_segmentation(alone, truth, **kept)
        beside = segmentation.score_segmentation(p[..., i], reference[..., i], **kept)
        fortran = segmentation.score_segmentation(np.asfortranarray(alone), truth, **kept)
        assert beside == pytest.approx(expected, nan_ok=True)
        assert fortran == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_case_scores_the_same(axis: int) -> None:
    p, reference = case(3)
    kept = {"regions": REGIONS, "spacing_mm": (1.0, 2.0)}
    mirrored = segmentation.score_segmentation(
        np.flip(p, axis + 1), np.flip(reference, axis), uncertainty=None, **kept
    )
    assert mirrored == pytest.approx(
        segmentation.score_segmentation(p, reference, **kept), nan_ok=True
    )


def test_more_background_changes_no_figure_of_the_region_of_interest() -> None:
    p, reference = case(4)
    p[:, :4], p[:, -8:] = (np.array([1.0, 0.0, 0.0])[:, None, None],) * 2
    p[:, :, :4], p[:, :, -8:] = (np.array([1.0, 0.0, 0.0])[:, None, None],) * 2
    wider = np.pad(p, ((0, 0), (9, 9), (9, 9)))
    wider[0] += wider.sum(axis=0) == 0
    kept = {"regions": REGIONS, "spacing_mm": (2.5, 2.5)}
    one = segmentation.score_segmentation(p, reference, **kept)
    two = segmentation.score_segmentation(wider, np.pad(reference, 9), **kept)
    changed = {key for key in one if one[key] != pytest.approx(two[key], nan_ok=True)}
    assert changed == {(f"{m}_volume", "all") for m in ("ece", "ece_mass", "brier", "nll")}


def test_single_precision_scores_as_double_does() -> None:
    p, reference = case(5)
    kept = {"regions": REGIONS, "spacing_mm": (1.0, 1.0)}
    one = segmentation.score_segmentation(p, reference, **kept)
    two = segmentation.score_segmentation(p.astype(np.float32), reference, **kept)
    assert one == pytest.approx(two, abs=1e-4, nan_ok=True)


def test_a_missed_structure_is_counted_and_an_absent_one_is_undefined() -> None:
    reference = np.zeros((8, 8), dtype=np.int64)
    p = np.zeros((3, 8, 8))
    p[0] = 1
    kept = {"regions": REGIONS, "spacing_mm": (1.0, 1.0)}
    scores = segmentation.score_segmentation(p, reference, **kept)
    assert np.isnan(scores["dice", "mean"])
    assert scores["false_alarm", "whole"] == 0
    assert np.isnan(scores["missed", "whole"])
    reference[2:4, 2:4] = 1
    scores = segmentation.score_segmentation(p, reference, **kept)
    assert scores["missed", "whole"] == 1
    assert scores["dice", "whole"] == 0
    assert scores["hd95_mm", "whole"] == pytest.approx(np.hypot(8, 8))


def test_the_tally_of_a_cohort_is_the_sum_over_its_cases() -> None:
    tallies = [
        segmentation.tally_segmentation(*case(seed), spacing_mm=(1.0, 1.0)) for seed in range(3)
    ]
    total = tallies[0]["volume"] + tallies[1]["volume"] + tallies[2]["volume"]
    assert total.n == 3 * 24 * 20


def test_the_region_of_interest_is_the_widened_union() -> None:
    prediction, reference = np.zeros((2, 30, 30), dtype=bool)
    prediction[10, 10] = reference[10, 12] = True
    roi = segmentation.region_of_interest(prediction, reference, spacing_mm=(5.0, 2.5))
    assert roi.sum() == 3 * (3 + 2 + 2)
    assert roi[9:12, 8:15].all()


def test_a_patient_with_two_cases_counts_once() -> None:
    cases = [
        protocol.CaseScores("a1", "a", {("dice", "mean"): 0.0}),
        protocol.CaseScores("a2", "a", {("dice", "mean"): 1.0}),
        protocol.CaseScores("b1", "b", {("dice", "mean"): 1.0}),
        protocol.CaseScores("c1", "c", {("dice", "mean"): float("nan")}),
    ]
    (row,) = protocol.summarise(cases, part="test", samples=200)
    assert row.value == 0.75
    assert (row.n, row.undefined) == (2, 1)
    assert row.low <= row.value <= row.high


def test_selective_rows_name_each_uncertainty() -> None:
    cases = [protocol.CaseScores(str(i), str(i), scored(i)) for i in range(6)]
    rows = protocol.summarise_selective(cases, part="test", samples=50)
    rows += protocol.summarise_review(cases, part="test")
    assert {r.label for r in rows} == {
        f"uncertainty/total/{how}" for how in ("volume", "region", "interior")
    }
    assert {r.metric for r in rows} == {
        "spearman_risk",
        "aurc",
        "excess_aurc",
        "review_share",
        "review_share_random",
    }


def test_rows_survive_json_and_missing_figures_are_null() -> None:
    rows = protocol.summarise(
        [protocol.CaseScores("a", "a", {("dice", "mean"): 0.5})], part="test", samples=200
    )
    text = protocol.to_json(rows)
    assert json.loads(text)["rows"][0]["low"] is None
    (back,) = protocol.from_json(text)
    assert back.value == 0.5
    assert np.isnan(back.low)


def test_a_file_of_another_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="schema 1"):
        protocol.from_json('{"schema": 2, "rows": []}')


def cohort(n: int = 80) -> findings.Findings:
    rng = np.random.default_rng(0)
    labels = (rng.random((n, 3)) < 0.4).astype(float)
    p = np.clip(0.3 * labels + rng.random((n, 3)) * 0.7, 0, 1)
    labels[:, 2] = 0
    labels[:5, 0] = np.nan
    labels[:3, 1] = -1
    return findings.Findings(("a", "b", "c"), p, labels, [str(i // 2) for i in range(n)])


def test_findings_have_a_row_per_metric_and_finding_and_their_mean() -> None:
    rows = {
        (r.metric, r.label): r for r in findings.score_findings(cohort(), part="test", samples=200)
    }
    assert rows["auroc", "a"].undefined == 5
    assert np.isnan(rows["auroc", "c"].value)
    mean = rows["auroc", "mean"]
    assert mean.value == pytest.approx((rows["auroc", "a"].value + rows["auroc", "b"].value) / 2)
    assert mean.undefined == 1
    assert mean.n == 40
    assert mean.low < mean.value < mean.high


def test_findings_of_a_handful_of_patients_stay_out_of_the_supported_mean() -> None:
    c = cohort()
    labels = np.array(c.labels)
    labels[:, 2] = 0
    labels[20:26, 2] = 1  # six films, three patients
    rare = findings.Findings(c.names, c.probability, labels, c.patients)
    auroc = {
        r.label: r
        for r in findings.score_findings(rare, part="test", samples=200)
        if r.metric == "auroc"
    }
    assert auroc["supported"].value == pytest.approx((auroc["a"].value + auroc["b"].value) / 2)
    assert (auroc["supported"].undefined, auroc["mean"].undefined) == (1, 0)
    labels[26, 2] = 1
    again = findings.Findings(c.names, c.probability, labels, c.patients)
    rows = {(r.metric, r.label): r for r in findings.score_findings(again, part="test", samples=50)}
    assert rows["auroc", "supported"].value == rows["auroc", "mean"].value


def test_findings_without_any_stated_label_are_undefined() -> None:
    empty = cohort()
    none = findings.Findings(
        empty.names, empty.probability, np.full((80, 3), np.nan), empty.patients
    )
    rows = findings.score_findings(none, part="test", samples=200)
    assert all(np.isnan(r.value) for r in rows)
    assert all(r.n == 0 for r in rows)


def test_findings_of_the_wrong_shape_are_refused() -> None:
    c = cohort()
    with pytest.raises(ValueError, match="do not fit 79 patients and 3 findings"):
        findings.score_findings(
            findings.Findings(c.names, c.probability, c.labels, c.patients[:-1]), part="test"
        )


def test_the_median_stands_beside_the_mean_under_its_own_name() -> None:
    cases = [
        protocol.CaseScores(str(i), str(i), {("dice", "whole"): v})
        for i, v in enumerate((0.0, 0.8, 0.9))
    ]
    (row,) = protocol.summarise(cases, part="test", statistic="median", samples=200)
    assert (row.metric, row.value) == ("dice_median", 0.8)


def test_an_uncertainty_that_is_high_where_decisions_are_wrong_finds_them() -> None:
    c = cohort()
    wrong = (np.asarray(c.probability) >= 0.5) != (np.asarray(c.labels) == 1)
    rows = {
        (r.metric, r.label): r
        for r in findings.score_uncertainty(
            c, {"oracle": wrong.astype(float), "none": np.ones((80, 3))}, part="t", samples=100
        )
    }
    assert rows["error_auroc/oracle", "mean"].value == 1.0
    assert rows["error_auroc/none", "mean"].value == 0.5
    assert rows["aurc/oracle", "a"].value < rows["aurc/none", "a"].value


def test_calibration_alone_is_the_same_calibration() -> None:
    p, reference = case(7)
    kept = {"regions": REGIONS, "spacing_mm": (1.0, 1.0)}
    alone = segmentation.score_calibration(p, reference, **kept)
    full = segmentation.score_segmentation(p, reference, **kept)
    assert alone == {key: full[key] for key in alone}
    assert ("ece", "core") in alone


def test_findings_beyond_one_are_refused() -> None:
    c = cohort()
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1, got .*\.\.2"):
        findings.score_findings(
            findings.Findings(c.names, np.full((80, 3), 2.0), c.labels, c.patients), part="test"
        )
