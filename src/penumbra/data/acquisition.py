"""How a scan was acquired, as a protocol label: from DICOM tags, or from a CT's slice spacing."""

from pathlib import Path

from penumbra.data import dicom, nifti
from penumbra.data.volume import spacing_of
from penumbra.types import Modality

BANDS_MM = (2.0, 4.0)
"""Thin, usual and thick abdominal CT; the site's protocol decides it."""


def protocol_of(path: Path, modality: Modality) -> str | None:
    """What tells scans of one modality apart, where the file says it; none where it does not.

    DICOM: field strength and sequence of MRI, kernel and slice thickness of CT, the view of a
    radiograph. NIfTI: the slice spacing of a CT, which is all that its header keeps.
    """
    name = path.name.lower()
    if path.is_dir() or name.endswith(dicom.SUFFIXES) or dicom.is_dicom(path):
        return _from_tags(dicom.tags(path), modality)
    if modality != "ct" or not name.endswith(nifti.SUFFIXES):
        return None
    _, affine = nifti.header_of(path)
    return _band(max(spacing_of(affine, 3)))


def _from_tags(tags: dict[str, str], modality: Modality) -> str | None:
    match modality:
        case "mri":
            field = f"{tags['field_strength']} T" if "field_strength" in tags else ""
            parts = [field, tags.get("sequence", "")]
        case "ct":
            thickness = tags.get("thickness_mm", "")
            known = thickness.replace(".", "", 1).isdigit()
            parts = [tags.get("kernel", ""), _band(float(thickness)) if known else ""]
        case "xray":
            parts = [tags.get("view", "")]
    return ", ".join(part for part in parts if part) or None


def _band(thickness_mm: float) -> str:
    low, high = BANDS_MM
    if thickness_mm < low:
        return f"slices under {low:g} mm"
    return f"slices {low:g} to {high:g} mm" if thickness_mm < high else f"slices from {high:g} mm"
