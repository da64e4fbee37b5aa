"""What a case's files show on one slice, and what every picture of a slice has in common."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import distance_transform_edt

from penumbra.data.geometry import load_volume
from penumbra.data.masks import read_mask
from penumbra.data.scan import read_channels, refuse_other_grid
from penumbra.types import Case, Task

SHOWN = (0.5, 99.5)
"""Percentiles of a slice that become black and white."""


def plot(case: Case) -> Figure:
    """One picture per channel, of the slice with most labelled, else the most bright, voxels.

    Label values are outlined, masks of experts dashed.

    Raises:
        DataError: a file cannot be read, or its grid differs from the first image's.
    """
    task = Task(modality="mri", channels=tuple(case.images))  # only the channels are asked for
    volumes = read_channels(case, task)
    first = next(iter(volumes.values()))
    outlines: list[tuple[np.ndarray, str]] = []
    if case.segmentation is not None:
        labels = load_volume(case.segmentation, label=True)
        refuse_other_grid(first, labels, next(iter(case.images.values())), case.segmentation)
        values = np.unique(labels.array[labels.array > 0])
        outlines += [(labels.array == value, "solid") for value in values]
    for name, path in case.masks.items():
        outlines.append((read_mask(case, name, path, first.array.shape), "dashed"))
    marked = np.sum([mask for mask, _ in outlines], 0) if outlines else np.zeros(1)
    at = _fullest(marked if marked.any() else first.array - first.array.min())
    aspect = aspect_of(first.spacing_mm)
    figure = Figure(figsize=(3.2 * len(volumes), 3.6), layout="constrained")
    for axes, (channel, volume) in zip(
        figure.subplots(1, len(volumes), squeeze=False)[0], volumes.items(), strict=True
    ):
        picture = axial(volume.array, at)
        low, high = np.nanpercentile(picture, SHOWN)
        axes.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=aspect)
        for k, (mask, style) in enumerate(outlines):
            if axial(mask, at).any():
                axes.contour(axial(mask, at), [0.5], colors=f"C{k}", linestyles=style)
        axes.set_title(channel)
        axes.set_axis_off()
    return figure


def axial(array: Shaped[np.ndarray, "*space"], at: int | None) -> Shaped[np.ndarray, "h w"]:
    """Slice ``at`` of a RAS+ volume as a radiologist holds it: anterior up, the patient's right on
    the left; a radiograph (``at`` is None) as it is.

    Example:
        >>> axial(np.arange(4).reshape(2, 2, 1), 0).tolist()
        [[3, 1], [2, 0]]
    """
    return np.asarray(array) if at is None else np.asarray(array[::-1, ::-1, at]).T


def aspect_of(spacing_mm: Sequence[float]) -> float:
    """Height of a pixel of ``axial`` over its width.

    Example:
        >>> aspect_of((1.0, 2.0, 5.0)), aspect_of((1.0, 2.0))
        (2.0, 0.5)
    """
    first, second = spacing_mm[:2]
    return second / first if len(spacing_mm) == 3 else first / second


def size_within(shape: Sequence[int], aspect: float, side: int) -> tuple[int, int]:
    """Width and height in which a slice is shown true to scale, the longer ``side`` pixels."""
    height, width = shape[:2]
    scale = side / max(height * aspect, width)
    return max(1, round(width * scale)), max(1, round(height * aspect * scale))


def data_url(picture: UInt8[np.ndarray, "..."] | Image.Image) -> str:
    """A picture as a link that holds it, in PNG."""
    whole = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    whole.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def innermost(mask: Bool[np.ndarray, "h w"]) -> tuple[float, float]:
    """Row and column of the middle of the pixel deepest inside a mask: where its name is written.

    Example:
        >>> innermost(np.pad(np.ones((3, 5), dtype=bool), ((0, 0), (2, 0)))[:, :5])
        (1.5, 3.5)
    """
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = divmod(int(depth.argmax()), mask.shape[1])
    return row + 0.5, column + 0.5


def _fullest(array: Shaped[np.ndarray, "*space"]) -> int | None:
    return None if array.ndim == 2 else int(np.nansum(array, (0, 1)).argmax())
