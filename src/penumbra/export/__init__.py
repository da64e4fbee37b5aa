"""Predictions for other programs: DICOM objects and DICOMweb."""
