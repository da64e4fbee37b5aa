"""Image-level findings: ranking, decisions and calibration over a cohort, with intervals.

These figures exist only over many cases, so the patient bootstrap draws the cases themselves, and
draws them once for all findings: a mean over findings keeps their correlation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from penumbra.evaluate import calibration, ranking, selective
from penumbra.evaluate.arrays import Array, as_numpy
from penumbra.evaluate.protocol import MEAN, Row, row
from penumbra.evaluate.statistics import interval, mean, resamples

Values = NDArray[np.float64]
SUPPORTED = "supported"
"""Label of the mean over the findings with ``SUPPORT`` patients with, and as many without."""
SUPPORT = 4
"""A patient bootstrap misses k patients in about exp(-k) of its resamples: for fewer than four that
is more than the 2.5 % beyond either end of a 95 % interval."""

Data = tuple[Values, Values, NDArray[np.bool_], Values]
"""Scores, labels, whether a label is stated, and each score's threshold or fold, all [n, f]."""

Metric = Callable[[Values, Values, Values, Values], Values]
"""(probability [n], label [n], threshold or fold [n], weights [s, n]) -> per resample [s]."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Predictions and labels of a cohort's image-level findings.

    Attributes:
        names: one per column.
        probability: of "present".
        labels: 1, 0, -1 uncertain or NaN not stated; the last two are left out.
        patients: one per row.
    """

    names: Sequence[str]
    probability: Float[Array, "n f"]
    labels: Float[Array, "n f"]
    patients: Sequence[str]


def score_findings(
    cohort: Findings,
    *,
    part: str,
    thresholds: Sequence[float] | None = None,
    bins: int = 15,
    samples: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """AUROC, AUPRC, accuracy, sensitivity, specificity, ECE, Brier and NLL per finding and mean.

    ``thresholds`` come from validation cases (``ranking.choose_threshold``); without them 0.5 is
    used. A finding with one class only has no AUROC and AUPRC: NaN, and counted in the mean's
    ``undefined``; ``supported`` is the mean without the findings of a handful of patients.
    Confidence in ECE is the probability of "present" (marginal calibration).

    Raises:
        ValueError: shapes disagree, a label is none of 1, 0, -1 and NaN, or a probability lies
            outside 0..1.
    """
    cuts = np.array(_thresholds(cohort, thresholds))
    return _scored(cohort, _metrics(bins), part, cuts, samples, seed)


def score_folds(
    cohort: Findings,
    folds: Sequence[int],
    *,
    part: str = "test",
    bins: int = 15,
    samples: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """AUROC, ECE, Brier and NLL of a cross-validation, per finding and mean.

    AUROC compares the cases of a fold with each other (``ranking.stratified_auroc``). Figures of
    decisions are left out: every fold has thresholds of its own.

    Args:
        folds: which network judged each case.

    Raises:
        ValueError: as ``score_findings``, or there is not one fold per case.
    """
    if len(folds) != len(cohort.patients):
        raise ValueError(f"{len(folds)} folds for {len(cohort.patients)} cases")
    metrics: dict[str, Metric] = {"auroc": ranking.stratified_auroc}
    metrics |= {name: _metrics(bins)[name] for name in ("ece", "brier", "nll")}
    which = np.asarray(folds, dtype=np.float64)[:, None]
    return _scored(cohort, metrics, part, which, samples, seed)


def score_uncertainty(
    cohort: Findings,
    uncertainty: Mapping[str, Float[Array, "n f"]],
    *,
    part: str,
    thresholds: Sequence[float] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """How well uncertainties of findings point at wrong decisions, per finding and on average.

    Per named uncertainty: ``error_auroc/<name>``, chance that a wrong decision is more uncertain
    than a right one, and ``aurc/<name>``, area under the curve of the error rate against coverage.

    Raises:
        ValueError: shapes disagree, or a label is none of 1, 0, -1 and NaN.
    """
    p, labels = _arrays(cohort)
    cuts = np.broadcast_to(_thresholds(cohort, thresholds), p.shape)
    known = ranking.stated(labels)
    wrong = np.where((p >= cuts) == (labels == 1), 0.0, 1.0)
    metrics: dict[str, Metric] = {
        "error_auroc": lambda u, y, cut, w: ranking.weighted_auroc(u, y, w),
        "aurc": lambda u, y, cut, w: selective.weighted_aurc(u, y, w),
    }
    rows = []
    for name, each in uncertainty.items():
        unsure = as_numpy(each).astype(np.float64)
        named = {f"{metric}/{name}": function for metric, function in metrics.items()}
        rows += _bootstrapped(named, cohort, part, (unsure, wrong, known, cuts), samples, seed)
    return rows


def _scored(
    cohort: Findings,
    metrics: dict[str, Metric],
    part: str,
    context: Values,
    samples: int,
    seed: int,
) -> list[Row]:
    p, labels = _arrays(cohort)
    if p.size and not (p.min() >= 0 and p.max() <= 1):
        raise ValueError(f"probabilities must lie in 0..1, got {p.min():.4g}..{p.max():.4g}")
    data = (p, labels, ranking.stated(labels), np.broadcast_to(context, p.shape))
    return _bootstrapped(metrics, cohort, part, data, samples, seed)


def _arrays(cohort: Findings) -> tuple[Values, Values]:
    p = as_numpy(cohort.probability).astype(np.float64)
    labels = as_numpy(cohort.labels).astype(np.float64)
    if not p.shape == labels.shape == (len(cohort.patients), len(cohort.names)):
        raise ValueError(
            f"probability {p.shape} and labels {labels.shape} do not fit "
            f"{len(cohort.patients)} patients and {len(cohort.names)} findings"
        )
    return p, labels


def _thresholds(cohort: Findings, given: Sequence[float] | None) -> list[float]:
    cuts = [0.5] * len(cohort.names) if given is None else list(given)
    if len(cuts) != len(cohort.names):
        raise ValueError(f"{len(cuts)} thresholds for {len(cohort.names)} findings")
    return cuts


def _bootstrapped(
    metrics: dict[str, Metric],
    cohort: Findings,
    part: str,
    data: Data,
    samples: int,
    seed: int,
) -> list[Row]:
    value = _score(metrics, data, np.ones((1, len(cohort.patients))))[:, :, 0]
    draws = np.concatenate(
        [
            _score(metrics, data, weights)
            for weights in resamples(cohort.patients, samples=samples, seed=seed)
        ],
        axis=2,
    )
    return _rows(cohort, part, list(metrics), data, value, draws)


def _score(metrics: dict[str, Metric], data: Data, weights: Values) -> NDArray[np.float64]:
    """Values [metric, finding, resample]."""
    p, labels, known, context = data
    scores = np.full((len(metrics), p.shape[1], len(weights)), np.nan)
    for j in range(p.shape[1]):
        kept = known[:, j]
        if kept.any():
            here = p[kept, j], labels[kept, j], context[kept, j], weights[:, kept]
            scores[:, j] = [metric(*here) for metric in metrics.values()]
    return scores


def _metrics(bins: int) -> dict[str, Metric]:
    return {
        "auroc": lambda p, y, cut, w: ranking.weighted_auroc(p, y, w),
        "auprc": lambda p, y, cut, w: ranking.weighted_average_precision(p, y, w),
        "accuracy": lambda p, y, cut, w: mean(((p >= cut) == y).astype(np.float64), w),
        "sensitivity": lambda p, y, cut, w: mean((p >= cut).astype(np.float64), w * y),
        "specificity": lambda p, y, cut, w: mean((p < cut).astype(np.float64), w * (1 - y)),
        "ece": lambda p, y, cut, w: calibration.weighted_ece(p, y, w, bins=bins),
        "brier": lambda p, y, cut, w: mean(np.square(p - y), w),
        "nll": lambda p, y, cut, w: mean(
            -np.log(np.maximum(np.where(y == 1, p, 1 - p), calibration.NLL_FLOOR)), w
        ),
    }


def _rows(
    cohort: Findings, part: str, metrics: Sequence[str], data: Data, value: Values, draws: Values
) -> list[Row]:
    patients, known = np.asarray(cohort.patients), data[2]
    supported = _supported(cohort.patients, data[1], known)
    rows = []
    for m, metric in enumerate(metrics):
        for j, name in enumerate(cohort.names):
            n = len(np.unique(patients[known[:, j]]))
            missing = int((~known[:, j]).sum())
            figure = interval(float(value[m, j]), draws[m, j], n=n, undefined=missing)
            rows.append(row(part, metric, name, figure))
        n = len(np.unique(patients[known.any(axis=1)]))
        for label, wanted in ((MEAN, np.ones_like(supported)), (SUPPORTED, supported)):
            kept = wanted & ~np.isnan(value[m])
            overall = float(value[m, kept].mean()) if kept.any() else math.nan
            # a finding that is undefined in the data is left out of every resample; one that is
            # undefined in a resample only makes that resample undefined
            spread = draws[m, kept].mean(axis=0) if kept.any() else np.empty(0)
            figure = interval(overall, spread, n=n, undefined=int((~kept).sum()))
            rows.append(row(part, metric, label, figure))
    return rows


def _supported(
    patients: Sequence[str], labels: Values, known: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether enough patients have the finding, and enough have it stated as absent."""
    people = np.asarray(patients)
    fewest = [
        min(len(np.unique(people[stated & (label == side)])) for side in (0, 1))
        for stated, label in zip(known.T, labels.T, strict=True)
    ]
    return np.array(fewest, dtype=int) >= SUPPORT
