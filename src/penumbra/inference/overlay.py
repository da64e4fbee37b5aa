"""Two channels on one picture: attention as color and outline, its uncertainty as hatching.

A second color on top of a first cannot be read apart, least of all by a color-blind reader;
texture can. Orange and blue are Okabe and Ito's, told apart under every common color blindness.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from penumbra.data.picture import size_within

ATTENTION = (230, 159, 0)
DOUBT = (0, 114, 178)
STEPS = (0.5, 1.0)
"""Uncertainty as a share of u_ref: hatched from the first on, cross-hatched from the second."""

SIDE, PERIOD, STROKE = 400, 10, 2


def overlay(
    gray: Float[np.ndarray, "h w"],
    attention: Float[np.ndarray, "h w"],
    doubt: Float[np.ndarray, "h w"] | None,
    *,
    scale: tuple[float, float],
    color: tuple[int, int, int] = ATTENTION,
    outline: float | None = None,
    aspect: float = 1.0,
) -> UInt8[np.ndarray, "rows columns 3"]:
    """A picture of about ``SIDE`` pixels: gray image, colored map, outline, blue hatching.

    Args:
        gray: image in display units.
        doubt: uncertainty over u_ref; none draws no hatching.
        scale: values of the map that get no color and full color; those beyond are clipped.
        outline: share of the scale along which a white line is drawn.
        aspect: height of a pixel over its width.
    """
    size = size_within(gray.shape, aspect, SIDE)
    low, high = scale
    share = _resize(np.clip((attention - low) / max(high - low, 1e-12), 0, 1), size)
    weight = 0.75 * share[..., None]
    ground = 255 * _resize(np.clip(gray, 0, 1), size)[..., None]
    mixed = (1 - weight) * ground + weight * np.array(color)
    if doubt is not None:
        mixed[hatching(_resize(doubt, size))] = DOUBT
    if outline is not None:
        inside = share > outline
        mixed[binary_dilation(inside, iterations=2) ^ inside] = (0, 0, 0)
        mixed[inside ^ binary_erosion(inside, iterations=2, border_value=1)] = (255, 255, 255)
    return mixed.round().astype(np.uint8)


def hatching(doubt: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of the lines: one diagonal from the first step, both from the second."""
    row, column = np.indices(doubt.shape)
    rising = (row + column) % PERIOD < STROKE
    falling = (row - column) % PERIOD < STROKE
    return (rising & (doubt >= STEPS[0])) | (falling & (doubt >= STEPS[1]))


def swatch(doubt: float, side: int = 28) -> UInt8[np.ndarray, "rows columns 3"]:
    """The legend of one step of uncertainty, on mid gray."""
    picture = np.full((side, side, 3), 128, np.uint8)
    picture[hatching(np.full((side, side), doubt))] = DOUBT
    return picture


def _resize(
    values: Float[np.ndarray, "h w"], size: tuple[int, int]
) -> Float[np.ndarray, "rows columns"]:
    picture = Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
