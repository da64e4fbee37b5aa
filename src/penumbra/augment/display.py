"""Stored units to the display units that a network sees."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.types import Modality


def to_display(
    image: Float[Tensor, "b c *space"],
    *,
    modality: Modality,
    window_hu: tuple[float, float] = (-160.0, 240.0),
) -> Float[Tensor, "b c *space"]:
    """Display units: CT windowed to 0..1, MRI and X-ray as they are.

    $$ \\mathrm{clip}\\left(\\frac{x - lo}{hi - lo}, 0, 1\\right) $$

    Raises:
        ValueError: the window is empty.

    Example:
        >>> to_display(torch.tensor([[[-500.0, 40.0, 900.0]]]), modality="ct").tolist()
        [[[0.0, 0.5, 1.0]]]
    """
    if modality != "ct":
        return image
    low, high = window_hu
    if high <= low:
        raise ValueError(f"window_hu {window_hu} is empty: the second value must be larger")
    return ((image - low) / (high - low)).clamp(0.0, 1.0)


def slice_to_display(
    picture: Float[np.ndarray, "h w"], *, modality: Modality, window_hu: tuple[float, float]
) -> Float[np.ndarray, "h w"]:
    """One slice of a stored image as ``to_display`` shows it, for pictures; within 0..1."""
    stored = torch.from_numpy(np.array(picture, dtype=np.float32))[None, None]
    display = to_display(stored, modality=modality, window_hu=window_hu)
    return display[0, 0].numpy().clip(0, 1)
