"""Predictions of other programs, judged, calibrated and triaged by the same protocol."""
