"""A trained model against held-out patients: validation, calibration, scores, hardship, samples."""

from penumbra.assess.calibrate import calibrate
from penumbra.assess.familiar import familiarize
from penumbra.assess.judge import assess
from penumbra.assess.temper import temper
from penumbra.assess.validate import validate

__all__ = ["assess", "calibrate", "familiarize", "temper", "validate"]
