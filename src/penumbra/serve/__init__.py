"""Predictions on this computer's own web page, and a queue that predicts uploaded scans."""
