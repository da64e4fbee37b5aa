"""A trained model against held-out patients: validation, calibration, scores, hardship, samples."""

from penumbra.assess.attention import calibrate_attention
from penumbra.assess.calibrate import calibrate

__all__ = [
    "JUDGED",
    "assess",
    "calibrate",
    "calibrate_attention",
    "familiarize",
    "judge",
    "temper",
    "validate",
]
