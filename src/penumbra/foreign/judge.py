"""Probability maps of any program through the protocol: fitted on a part, judged on the rest."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer

from penumbra import progress
from penumbra.assess.calibrate import sample_voxels
from penumbra.assess.curves import diagram, risk_coverage, table_line, table_text
from penumbra.bayes.temperature import apply_temperature, fit_temperature
from penumbra.data.scan import class_indices
from penumbra.errors import DataError
from penumbra.evaluate.expected import ExpectedScore, fit_expected, from_record
from penumbra.evaluate.overlap import confusion, dice, label_map
from penumbra.evaluate.protocol import (
    ALL,
    MEAN,
    CaseScores,
    Row,
    mean_of_defined,
    summarise,
    summarise_review,
    summarise_selective,
    to_json,
)
from penumbra.evaluate.segmentation import (
    score_calibration,
    score_segmentation,
    tally_segmentation,
)
from penumbra.evaluate.selective import POOR_DICE, aggregate, review_budget
from penumbra.files import write_text
from penumbra.foreign.parts import PARTS, draw_parts
from penumbra.foreign.read import (
    ForeignCase,
    find_cases,
    read_case,
    read_task,
)
from penumbra.inference.decision import Signs, decide
from penumbra.inference.triage import referral, write_list
from penumbra.trained import Calibration, environment
from penumbra.types import Task

HEADLINE = "uncertainty/entropy/region"
"""One deterministic prediction has one uncertainty: the entropy of its own probabilities."""
TARGET = 0.05


@dataclass(frozen=True)
class Fitted:
    """What is fitted on the validation part of foreign predictions.

    Attributes:
        temperature: divides the log-probabilities.
        review_above: mean entropy of the predicted region (nats) from which a case goes to review.
        expected_dice: mean Dice from that entropy; None with too few cases.
        parts: case names, ``val`` and ``test``.
    """

    temperature: float
    review_above: float | None
    expected_dice: ExpectedScore | None
    parts: Mapping[str, Sequence[str]]


def calibrate(predictions: Path, labels: Path, out: Path, *, validation: str | None = None) -> Path:
    """Fit temperature, review limit and expected Dice on validation cases: ``calibration.json``.

    Args:
        validation: a split file, or the share of the cases to fit on (0.3 unless given), drawn
            with a fixed seed. Every case counts as its own patient: where patients have several
            cases, name them in a split file.

    Raises:
        DataError: predictions and labels do not fit each other, a part would be empty, or nothing
            is marked in validation cases.
    """
    cases = find_cases(predictions, labels)
    fitted = _fit(
        cases, read_task(predictions, labels), draw_parts([c.id for c in cases], validation)
    )
    out.mkdir(parents=True, exist_ok=True)
    path = out / "calibration.json"
    write_text(path, json.dumps(asdict(fitted), indent=1))
    return path


def evaluate(
    predictions: Path, labels: Path, out: Path, *, validation: str | None = None
) -> list[Path]:
    """Calibrate, then judge and triage every case: the folder can be given to ``report``.

    Writes ``calibration.json``, ``metrics.json``, ``cases.csv``, ``triage.csv`` and
    ``triage.html``, raw and temperature-scaled figures side by side.

    Raises:
        DataError: as ``calibrate``.
    """
    calibration = calibrate(predictions, labels, out, validation=validation)
    cases, task = find_cases(predictions, labels), read_task(predictions, labels)
    fitted = _fitted(calibration)
    judged = {part: _judge(cases, task, fitted, part) for part in PARTS}
    rows = [row for part in PARTS for row in judged[part].rows(part)]
    test = judged["test"]
    curves = {"reliability": test.reliability(), "risk_coverage": test.risk_coverage()}
    command = f"penumbra report --predictions {predictions} --labels {labels} --out {out}"
    record = {
        "name": predictions.resolve().name,
        "temperature": fitted.temperature,
        "environment": {**environment(), "command": command},
    }
    write_text(out / "metrics.json", to_json(rows, record))
    lines = [table_line(s, part=part) for part in PARTS for s in judged[part].scores]
    write_text(out / "cases.csv", table_text(lines))
    write_text(out / "split.json", json.dumps({"parts": dict(fitted.parts)}, indent=1))
    (out / "evaluation").mkdir(exist_ok=True)
    write_text(out / "evaluation" / "curves.json", json.dumps(curves))
    unsure, risk = test.unsure_and_risk()
    records = sorted(test.records, key=lambda r: -r["decision"]["need_of_review"])
    triage = write_list(out, records, referral(unsure, risk > 1 - POOR_DICE))
    return [calibration, out / "metrics.json", out / "cases.csv", *triage]


def _fit(
    cases: Sequence[ForeignCase], task: Task | None, parts: Mapping[str, Sequence[str]]
) -> Fitted:
    logs, labels, unsure, scores = [], [], [], []
    for each in _read_all(cases, task, parts["val"], "calibrate"):
        log, label = sample_voxels(each.probability, each.reference, each.spacing_mm, seed=0)
        logs.append(log)
        labels.append(label)
        unsure.append(aggregate(each.entropy, label_map(each.probability), how="region"))
        scores.append(_dice(each))
    if not any(len(label) for label in labels):
        raise DataError(
            f"none of the validation cases ({', '.join(parts['val'][:5])}) has a structure, marked "
            "or predicted; name others in a split file"
        )
    failed = np.array([s < POOR_DICE for s in scores])
    limit = review_budget(np.array(unsure), failed, target=TARGET).threshold
    return Fitted(
        temperature=fit_temperature(torch.cat(logs), torch.cat(labels)),
        review_above=float(limit) if np.isfinite(limit) else None,
        expected_dice=fit_expected(np.array(unsure), np.array(scores)),
        parts=parts,
    )


@dataclass(frozen=True)
class _Read:
    id: str
    probability: Float[np.ndarray, "c x y z"]
    reference: Integer[np.ndarray, "x y z"]
    spacing_mm: tuple[float, ...]
    task: Task

    @property
    def entropy(self) -> Float[np.ndarray, "x y z"]:
        total = np.zeros(self.probability.shape[1:], dtype=np.float32)
        for p in self.probability:  # class by class: no second array of all classes
            total -= p * np.log(np.maximum(p, 1e-12))
        return total


def _read_all(
    cases: Sequence[ForeignCase], task: Task | None, chosen: Sequence[str], what: str
) -> Iterator[_Read]:
    kept = [case for case in cases if case.id in set(chosen)]
    classes = None if task is None else task.classes
    with progress.bar(what, len(kept)) as advance:
        for case in kept:
            probability, label, found = read_case(case, task)
            if classes is not None and found.classes != classes:
                raise DataError(
                    f"{case.prediction}: {len(found.classes)} classes, the cases before have "
                    f"{len(classes)}; judge one model at a time"
                )
            classes = found.classes
            reference = class_indices(label.array, found, case.label)
            yield _Read(case.id, probability, reference, label.spacing_mm, found)
            advance(case.id)


def _dice(case: _Read) -> float:
    counts = confusion(label_map(case.probability), case.reference, classes=len(case.task.classes))
    return mean_of_defined([dice(counts, members) for members in case.task.regions.values()])


class _Judged:
    """One part's cases, reduced to what rows and curves need."""

    def __init__(self) -> None:
        self.scores: list[CaseScores] = []
        self.records: list[dict[str, Any]] = []
        self.tallies: dict[str, list[Any]] = {"raw": [], "scaled": []}

    def rows(self, part: str) -> list[Row]:
        rows = summarise(self.scores, part=part)
        rows += summarise_selective(self.scores, part=part, samples=500)
        return rows + summarise_review(self.scores, part=part, target=TARGET)

    def reliability(self) -> dict[str, Any]:
        return {n: diagram(reduce(lambda a, b: a + b, t)) for n, t in self.tallies.items()}

    def unsure_and_risk(self) -> tuple[np.ndarray, np.ndarray]:
        unsure = np.array([s.scores[HEADLINE, ALL] for s in self.scores])
        return unsure, 1 - np.array([s.scores["dice", MEAN] for s in self.scores])

    def risk_coverage(self) -> dict[str, list[float]]:
        return risk_coverage(*self.unsure_and_risk())


def _judge(cases: Sequence[ForeignCase], task: Task | None, fitted: Fitted, part: str) -> _Judged:
    judged = _Judged()
    for case in _read_all(cases, task, fitted.parts[part], f"evaluate {part}"):
        regions, spacing, entropy = case.task.regions, case.spacing_mm, case.entropy
        scores = score_segmentation(
            case.probability,
            case.reference,
            regions=regions,
            spacing_mm=spacing,
            uncertainty={"entropy": entropy},
        )
        scaled = apply_temperature(torch.from_numpy(case.probability)[None], fitted.temperature)[0]
        again = score_calibration(scaled, case.reference, regions=regions, spacing_mm=spacing)
        scores |= {(f"{metric}_scaled", label): v for (metric, label), v in again.items()}
        for name, p in (("raw", case.probability), ("scaled", scaled.numpy())):
            tally = tally_segmentation(p, case.reference, spacing_mm=spacing)
            judged.tallies[name].append(tally["roi"])
        judged.records.append(_record(case, scores[HEADLINE, ALL], fitted))
        expected = judged.records[-1].get("expected_dice")
        if expected is not None:
            scores["expected_dice_error", MEAN] = abs(expected["value"] - scores["dice", MEAN])
        judged.scores.append(CaseScores(case.id, case.id, scores))
    return judged


def _record(case: _Read, uncertainty: float, fitted: Fitted) -> dict[str, Any]:
    """A line of the triage list, from the prediction alone."""
    empty = not (label_map(case.probability) > 0).any()
    signs = Signs(uncertainty=uncertainty, disagreement=0.0, empty=empty)
    decision = decide(signs, Calibration(review_above=fitted.review_above))
    record: dict[str, Any] = {
        "case": case.id,
        "decision": decision.record(),
        "uncertainty": uncertainty,
    }
    if fitted.expected_dice is not None:
        record["expected_dice"] = fitted.expected_dice.of(uncertainty)
    return record


def _fitted(path: Path) -> Fitted:
    tree = json.loads(path.read_text())
    line = from_record(tree["expected_dice"] or {})
    return Fitted(
        tree["temperature"],
        tree["review_above"],
        line,
        tree["parts"],
    )
