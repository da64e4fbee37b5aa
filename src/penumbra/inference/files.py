"""Maps as files in the scan's own grid: NIfTI for volumes, PNG for radiographs."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Shaped
from PIL import Image

from penumbra.data.geometry import Geometry
from penumbra.data.preprocess import restore
from penumbra.files import atomic

GRAY_TOP = 65535


def write_map(
    out: Path,
    name: str,
    array: Shaped[np.ndarray, "..."],
    placed: Geometry,
    *,
    fill: float | Sequence[float] = 0.0,
) -> list[Path]:
    """Write one map of a prepared grid at the scan's shape and affine; the files written.

    Unsigned bytes are labels, everything else becomes float32 (NIfTI) or 16-bit gray with 65535
    for 1 (PNG, one file per class or map). What preprocessing cropped away is ``fill``, one value
    or one for each class or map.
    """
    back = restore(array, placed, fill=fill)
    if len(placed.shape) == 3:
        return _write_nifti(out, name, back, placed)
    return _write_png(out, name, back)


def _write_nifti(
    out: Path, name: str, back: Shaped[np.ndarray, "..."], placed: Geometry
) -> list[Path]:
    if back.ndim == 4:  # NIfTI keeps classes and maps behind space
        back = np.moveaxis(back, 0, -1)
    kept = back if back.dtype == np.uint8 else back.astype(np.float32, copy=False)
    image = nibabel.Nifti1Image(kept, placed.file_affine)
    image.header.set_xyzt_units("mm")
    return [_save(out / f"{name}.nii.gz", lambda part: nibabel.save(image, part))]


def _write_png(out: Path, name: str, back: Shaped[np.ndarray, "..."]) -> list[Path]:
    layers = [back] if back.ndim == 2 else list(back)
    wrote = []
    for k, layer in enumerate(layers):
        path = out / (f"{name}.png" if len(layers) == 1 else f"{name}_{k}.png")
        if layer.dtype == np.uint8:
            picture = Image.fromarray(layer)
        else:
            gray = (layer.clip(0, 1) * GRAY_TOP).round().astype(np.uint16)
            picture = Image.fromarray(gray)
        wrote.append(_save(path, partial(picture.save, format="png")))
    return wrote


def _save(path: Path, write: Callable[[Path], None]) -> Path:
    """Write through a temporary file whose suffix the writers recognize."""
    with atomic(path) as part:
        named = part.with_name(part.name + "".join(path.suffixes[-2:]))
        try:
            write(named)
            named.replace(part)
        finally:
            named.unlink(missing_ok=True)
    return path
