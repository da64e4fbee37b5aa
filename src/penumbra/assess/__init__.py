"""A trained model against held-out patients: validation, calibration, scores, hardship, samples."""

from penumbra.assess.attention import calibrate_attention
from penumbra.assess.calibrate import calibrate
from penumbra.assess.judge import JUDGED, assess, judge
from penumbra.assess.temper import temper
from penumbra.assess.validate import validate

<<<<<<< HEAD
__all__ = ["JUDGED", "assess", "calibrate", "judge", "temper", "validate"]
=======
__all__ = ["assess", "calibrate", "calibrate_attention", "temper", "validate"]
>>>>>>> main
