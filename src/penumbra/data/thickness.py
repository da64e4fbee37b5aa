"""The one acquisition attribute that every volume carries: the distance between its slices."""

from pathlib import Path

from penumbra.data import nifti
from penumbra.data.volume import spacing_of
from penumbra.types import Modality

BANDS_MM = (2.0, 4.0)
"""Thin, usual and thick abdominal CT; the site's protocol decides it."""


def slice_band(path: Path, modality: Modality) -> str | None:
    """Slice thickness band of a CT as a protocol label; none for other modalities or formats."""
    if modality != "ct" or not path.name.endswith(nifti.SUFFIXES):
        return None
    _, affine = nifti.header_of(path)
    thickness = max(spacing_of(affine, 3))
    low, high = BANDS_MM
    if thickness < low:
        return f"slices under {low:g} mm"
    return f"slices {low:g} to {high:g} mm" if thickness < high else f"slices from {high:g} mm"
