"""Predictions in other programs' formats: DICOM for the reading room, ONNX for other runtimes."""
