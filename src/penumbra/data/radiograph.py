"""PNG and JPEG radiographs and masks: grey values as [rows, columns]."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from penumbra.data.volume import Volume, as_labels, refuse_size
from penumbra.errors import DataError, first_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_KINDS = ("PNG", "JPEG", "TIFF", "BMP")
_BIT_DEPTHS = (8, 10, 12, 14, 16)
DETECTOR_MM = 430.0
"""Long side of the usual chest detector, 14 x 17 inches, which a film without spacing shows."""


def read(path: Path, *, label: bool = False) -> Volume:
    """Grey values as float32 and the detector's full range, 2^bits - 1; a label as integers.

    Colour is turned to grey by the ITU-R 601 weights; of a label's palette the numbers are read.
    A 16-bit file is taken to hold the smallest usual bit depth (10, 12, 14, 16) that fits its
    largest value; broken numbers up to 1 are shares of the full range. Such files know no
    millimetres: the picture is taken to show a whole detector (``assumed_affine``).

    Raises:
        DataError: not an image, several, damaged, larger than can be read, grey values beyond 16
            bits, or labels that are not integers.
    """
    array = _grey(path, palette=label)
    affine = assumed_affine(array.shape)
    return Volume(
        as_labels(array, path) if label else array.astype(np.float32),
        affine,
        tuple(array.shape),
        affine,
        full_scale=None if label else _full_scale(array, path),
    )


def _full_scale(grey: np.ndarray, path: Path) -> float:
    known = grey[np.isfinite(grey)]
    low, high = float(known.min(initial=0)), float(known.max(initial=0))
    if low < 0 or high >= 2 ** _BIT_DEPTHS[-1]:
        raise DataError(
            f"{path}: grey values from {low:g} to {high:g}; expected 0 to 65535, save it in 16 bits"
        )
    if high <= 1 and (known != np.rint(known)).any():
        return 1.0
    return float(2 ** next(b for b in _BIT_DEPTHS if high < 2**b) - 1)


def assumed_affine(shape: Sequence[int]) -> np.ndarray:
    """Square pixels, the long side ``DETECTOR_MM``."""
    pixel_mm = DETECTOR_MM / max(shape)
    return np.diag([pixel_mm, pixel_mm, 1.0, 1.0])


def read_mask(path: Path) -> np.ndarray:
    """A boolean mask: what is not black."""
    return _grey(path) > 0


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path, formats=_KINDS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise DataError(
            f"{path}: not a readable image ({first_line(error)}); "
            "PNG, JPEG, TIFF and BMP are read, up to 89 million pixels"
        ) from error


def _grey(path: Path, *, palette: bool = False) -> np.ndarray:
    """Grey values; of a picture with a palette its numbers instead, where they are asked for."""
    with _opened(path) as image:
        refuse_size((image.height, image.width), path)
        pictures = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        if pictures > 1:
            raise DataError(f"{path}: holds {pictures} pictures; give each a file of its own")
        try:
            if palette and image.mode == "P":
                return np.asarray(image)
            if image.mode in {"1", "L", "I;16", "I;16B", "I", "F"}:
                return np.asarray(image).astype(np.float32)
            return np.asarray(image.convert("L"))
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(
                f"{path}: cannot be decoded to its end ({str(error)[:120]}); "
                "the file is truncated or damaged, copy it again"
            ) from error
