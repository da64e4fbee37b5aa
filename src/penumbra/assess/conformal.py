"""Fits the promises of ``inference.promises`` on validation patients, and counts how they hold."""

import math
from dataclasses import dataclass, field

import numpy as np

from penumbra.bayes.conformal import conformal_quantile, interval_scores, set_scores
from penumbra.data.preprocess import Prepared
from penumbra.inference.maps import CaseMaps
from penumbra.inference.promises import LEVEL, finding_set, volume_interval
from penumbra.inference.summary import credible
from penumbra.trained import Calibration, Trained
from penumbra.types import IGNORE, Task

FLOOR = 0.05
"""Least floor of a volume's spread, as a share of the median predicted volume."""


@dataclass
class Volumes:
    """Predicted and true volumes of one structure, over cases."""

    patient: list[str] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    spread: list[float] = field(default_factory=list)
    truth: list[float] = field(default_factory=list)

    def fit(self) -> tuple[float, float] | None:
        """Quantile and floor in ml; none if so few patients promise nothing."""
        mean, spread, truth = (np.array(x) for x in (self.mean, self.spread, self.truth))
        floor = max(float(np.median(spread)), FLOOR * float(np.median(mean)), 1e-3)
        scores = interval_scores(mean, spread, truth, floor=floor)
        quantile = conformal_quantile(_worst(scores, self.patient), alpha=1 - LEVEL)
        return (quantile, floor) if math.isfinite(quantile) else None


@dataclass
class Promised:
    """What the validation cases say about volumes and findings."""

    volumes: dict[str, Volumes] = field(default_factory=dict)
    scores: dict[str, tuple[list[str], list[float]]] = field(default_factory=dict)

    def add(self, case: Prepared, maps: CaseMaps, task: Task) -> None:
        for region, truth in true_volumes_ml(case, task).items():
            draws = maps.draw_volumes_ml[region]
            seen = self.volumes.setdefault(region, Volumes())
            seen.patient.append(case.case.patient)
            seen.mean.append(float(draws.mean()))
            seen.spread.append(float(draws.std()))
            seen.truth.append(truth)
        if maps.findings is None:
            return
        for k, name in enumerate(task.findings):
            label = float(case.findings[k])
            if label in (0, 1):
                p = float(maps.findings.probability[k])
                score = set_scores(np.array([[1 - p, p]]), np.array([int(label)]))[0]
                patients, scores = self.scores.setdefault(name, ([], []))
                patients.append(case.case.patient)
                scores.append(float(score))

    def volume_quantiles(self) -> dict[str, tuple[float, float]]:
        found = {region: each.fit() for region, each in self.volumes.items()}
        return {region: fitted for region, fitted in found.items() if fitted is not None}

    def finding_quantiles(self) -> dict[str, float]:
        found = {
            name: conformal_quantile(_worst(np.array(scores), patients), alpha=1 - LEVEL)
            for name, (patients, scores) in self.scores.items()
        }
        return {name: quantile for name, quantile in found.items() if math.isfinite(quantile)}


def true_volumes_ml(case: Prepared, task: Task) -> dict[str, float]:
    """Structure -> its volume in the reference; empty without one, or where voxels are ignored."""
    if case.segmentation is None or not task.regions:
        return {}
    reference = np.asarray(case.segmentation)
    if (reference == IGNORE).any():
        return {}
    voxel_ml = float(np.prod(case.spacing_mm)) / 1000
    return {
        region: float(np.isin(reference, members).sum()) * voxel_ml
        for region, members in task.regions.items()
    }


def coverage(model: Trained, case: Prepared, maps: CaseMaps) -> dict[tuple[str, str], float]:
    """1 where an interval or a set holds the truth, 0 where it does not; and how wide it is."""
    scores: dict[tuple[str, str], float] = {}
    for region, truth in true_volumes_ml(case, model.task).items():
        draws = maps.draw_volumes_ml[region]
        if len(draws) > 1:
            own = credible(draws, level=LEVEL)
            scores["coverage/volume_credible", region] = own["low"] <= truth <= own["high"]
        found = volume_interval(draws, region, model.calibration)
        if found is not None:
            scores["coverage/volume_conformal", region] = found[0] <= truth <= found[1]
            scores["width_ml/volume_conformal", region] = found[1] - found[0]
    if maps.findings is not None:
        for k, name in enumerate(model.task.findings):
            scores |= _finding(model.calibration, name, maps, case, k)
    return {key: float(value) for key, value in scores.items()}


def _finding(
    calibration: Calibration, name: str, maps: CaseMaps, case: Prepared, k: int
) -> dict[tuple[str, str], float]:
    assert maps.findings is not None
    found = finding_set(float(maps.findings.probability[k]), name, calibration)
    label = float(case.findings[k])
    if found is None or label not in (0, 1):
        return {}
    return {
        ("coverage/finding_set", name): float(("absent", "present")[int(label)] in found),
        ("size/finding_set", name): float(len(found)),
    }


def _worst(scores: np.ndarray, patients: list[str]) -> np.ndarray:
    """One score per patient, the largest: cases of one patient are not exchangeable."""
    worst: dict[str, float] = {}
    for patient, score in zip(patients, scores, strict=True):
        worst[patient] = max(worst.get(patient, -math.inf), float(score))
    return np.array(list(worst.values()))
