"""Predictions of other programs, judged, calibrated and triaged by the same protocol."""

from penumbra.foreign.judge import calibrate, evaluate

__all__ = ["calibrate", "evaluate"]
