"""A trained model against held-out patients: validation, calibration, scores, hardship, samples."""

from penumbra.assess.attention import calibrate_attention
from penumbra.assess.calibrate import calibrate
from penumbra.assess.familiar import familiarize
from penumbra.assess.judge import JUDGED, assess, judge
from penumbra.assess.temper import temper
from penumbra.assess.validate import validate

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
