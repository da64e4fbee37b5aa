"""Accept, review or reject: what a prediction's own signs say, with every reason in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from penumbra.bayes.mahalanobis import Strangeness
from penumbra.trained import Calibration, RankedBy

Verdict = Literal["accept", "review", "reject"]

UNSURE_SPREADS = 2.0
"""A finding this many posterior standard deviations from its threshold could fall either way."""
NAMES: Mapping[RankedBy, str] = {
    "disagreement": "disagreement between draws",
    "uncertainty": "uncertainty",
    "entropy": "mean entropy",
    "structure": "mean entropy within the structures",
}
BROKEN_AGREEMENT = 0.5
"""Draws that share less than this mean Dice do not describe one segmentation."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known of one prediction without any reference.

    Attributes:
        uncertainty: mean epistemic variance in the predicted foreground, widened; None without a
            segmentation.
        disagreement: 1 - mean pairwise Dice of the draws' foregrounds, 0..1.
        entropy: mean predictive entropy over the scan, in nats.
        structure: the same within the predicted structures, their mean.
        empty: a segmentation was asked for and nothing was found.
        findings: finding -> (probability, posterior standard deviation).
        missing: channels that the model was trained with and the scan lacks.
        channels: how many channels the model was trained with.
        notes: what was repaired while reading.
        strangeness: how unlike the training scans its features are; None where that is not known.
    """

    uncertainty: float | None
    disagreement: float
    empty: bool = False
    findings: Mapping[str, tuple[float, float]] | None = None
    missing: Sequence[str] = ()
    channels: int = 1
    notes: Sequence[str] = ()
    strangeness: Strangeness | None = None
    entropy: float = 0.0
    structure: float = 0.0

    def score(self, calibration: Calibration) -> float | None:
        """What ranks this case; None without a segmentation."""
        if self.uncertainty is None:
            return None
        return float(getattr(self, calibration.ranked_by))


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, its reasons in words, and the need of review that ranks cases (0 is calm)."""

    verdict: Verdict
    reasons: tuple[str, ...]
    need: float

    def record(self) -> dict[str, Any]:
        """As summaries and triage lists keep it."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "need_of_review": self.need,
        }


def decide(signs: Signs, calibration: Calibration) -> Decision:
    """Reject what cannot be judged, send to review what the model is unsure of, accept the rest.

    The limit of the score that ranks cases was chosen on validation patients (``review_above``);
    every other rule is stated with its figures in the reason. ``need`` is the score over that
    limit where there is one, else the disagreement between draws; rejected cases lie above all
    others (+2), cases for review above accepted ones (+1).

    Example:
        >>> decide(Signs(0.004, 0.05), Calibration(review_above=0.01)).verdict
        'accept'
        >>> decide(Signs(0.02, 0.05), Calibration(review_above=0.01)).reasons[0]
        'uncertainty 0.02 is above the limit 0.01 chosen on validation patients'
    """
    rejections, doubts = _rejections(signs), _doubts(signs, calibration)
    ratio = _ratio(signs, calibration)
    calm = ratio / (1 + ratio)  # 0..1, so that the verdict comes first in the ranking
    if rejections:
        return Decision("reject", (*rejections, *doubts), 2 + calm)
    if doubts:
        return Decision("review", tuple(doubts), 1 + calm)
    limit, score = calibration.review_above, signs.score(calibration)
    known = "no rule asks for a review"
    if score is not None and limit is not None:
        known = f"{NAMES[calibration.ranked_by]} {score:.2g} is within the limit {limit:.2g}"
    return Decision("accept", (known,), calm)


def _rejections(signs: Signs) -> list[str]:
    reasons = []
    if len(signs.missing) * 2 > signs.channels:
        reasons.append(
            f"{len(signs.missing)} of {signs.channels} channels are missing: "
            + ", ".join(signs.missing)
        )
    if signs.disagreement > 1 - BROKEN_AGREEMENT:
        reasons.append(
            f"posterior draws share a mean Dice of only {1 - signs.disagreement:.2f}; "
            "they do not describe one segmentation"
        )
    if signs.uncertainty is not None and not np.isfinite(signs.uncertainty):
        reasons.append("the uncertainty is not a number; the scan or the model is damaged")
    return reasons


def _doubts(signs: Signs, calibration: Calibration) -> list[str]:
    reasons = []
    limit, score = calibration.review_above, signs.score(calibration)
    if score is not None and limit is not None and score >= limit:
        reasons.append(
            f"{NAMES[calibration.ranked_by]} {score:.2g} is above the limit {limit:.2g} "
            "chosen on validation patients"
        )
    strange = signs.strangeness
    if strange is not None and strange.nearer == strange.scans > 0:
        reasons.append(
            f"its features lie farther from the training scans ({strange.distance:.2f}) than those "
            f"of all {strange.scans} validation scans; a familiar scan does so once in "
            f"{strange.scans + 1}"
        )
    if signs.empty:
        reasons.append("none of the structures was found")
    if signs.missing:
        reasons.append(f"the scan lacks {', '.join(signs.missing)}; zeros took their place")
    reasons += [f"while reading: {note}" for note in signs.notes]
    for name, (probability, spread) in (signs.findings or {}).items():
        threshold = calibration.thresholds.get(name, 0.5)
        if abs(probability - threshold) < UNSURE_SPREADS * spread:
            reasons.append(
                f"{name}: probability {probability:.2f} +- {spread:.2f} cannot be told from "
                f"the threshold {threshold:.2f}"
            )
    return reasons


def _ratio(signs: Signs, calibration: Calibration) -> float:
    score = signs.score(calibration)
    if score is not None and calibration.review_above:
        ratio = score / calibration.review_above
        return ratio if np.isfinite(ratio) else 1e9
    spreads = [spread for _, spread in (signs.findings or {}).values()]
    return max([signs.disagreement, *spreads])
