"""One case on one page: the picture, the half-shadow beside it, the figures and the decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image
from skimage.segmentation import find_boundaries

from penumbra.attend.scale import (
    COLORMAPS,
    EXPLAINED,
    STRUCTURES,
    color_range,
    flat,
    gradient,
)
from penumbra.augment import slice_to_display
from penumbra.config import Config
from penumbra.data.picture import aspect_of, axial, data_url, innermost, size_within
from penumbra.data.preprocess import Prepared
from penumbra.pages import render

SIDE = 320


@dataclass(frozen=True, slots=True)
class Tag:
    """A class's number inside its outline; ``left`` and ``top`` in % of the picture."""

    text: str
    left: float
    top: float


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of the case; ``low`` and ``high`` have no and full color, if it is a map."""

    name: str
    rgb: UInt8[np.ndarray, "h w 3"]
    aspect: float
    explained: str = ""
    low: str = ""
    high: str = ""
    gradient: str = ""
    tags: tuple[Tag, ...] = ()

    @property
    def png(self) -> str:
        """The picture as a data URL."""
        size = size_within(self.rgb.shape, self.aspect, SIDE)
        return data_url(Image.fromarray(self.rgb).resize(size, Image.Resampling.NEAREST))


def case_page(
    record: Mapping[str, Any],
    case: Prepared,
    arrays: Mapping[str, np.ndarray],
    config: Config,
) -> str:
    """One self-contained page; nothing is fetched when it is opened.

    Volumes show the axial slice with most segmented voxels (else most attention), patient's right
    on the left of the picture.
    """
    labels, attention = arrays.get("segmentation"), _attention(record, arrays)
    classes = record["task"]["classes"][1:]
    many = len(classes) > len(STRUCTURES)
    legend = [
        (f"{k + 1} {name}" if many else name, STRUCTURES[k % len(STRUCTURES)])
        for k, name in enumerate(classes)
    ]
    context = {
        "record": record,
        "panels": panels(record, case, arrays, config),
        "legend": legend,
        "slice": _slice(labels, attention),
        "channel": channel_name(record["task"]["channels"], case),
    }
    return render("inference", "case.html.j2", context)


def panels(
    record: Mapping[str, Any], case: Prepared, arrays: Mapping[str, np.ndarray], config: Config
) -> list[Panel]:
    """The outlined image, then each map over it."""
    labels, attention = arrays.get("segmentation"), _attention(record, arrays)
    at, aspect = _slice(labels, attention), aspect_of(case.spacing_mm)
    there = shown_channel(record["task"]["channels"], case)
    display = slice_to_display(
        axial(case.image[there], at), modality=config.modality, window_hu=config.data.window_hu
    )
    gray = (255 * display).round().astype(np.uint8)
    outlined = np.repeat(gray[..., None], 3, -1)
    tags: tuple[Tag, ...] = ()
    if labels is not None:
        _outline(outlined, axial(labels, at))
        if len(record["task"]["classes"]) - 1 > len(STRUCTURES):
            tags = _tags(axial(labels, at))
    shown = [Panel("segmentation" if labels is not None else "image", outlined, aspect, tags=tags)]
    for name in COLORMAPS:
        values = attention if name == "attention" else arrays.get(name)
        if values is not None:
            shown.append(_panel(name, gray, axial(values, at), aspect))
    return shown


def shown_channel(channels: Sequence[str], case: Prepared) -> int:
    """The first of the model's channels that the scan has: what pictures of it show."""
    return next(k for k, name in enumerate(channels) if name not in case.missing)


def channel_name(channels: Sequence[str], case: Prepared) -> str:
    """Its name where there are several; one needs none."""
    return channels[shown_channel(channels, case)] if len(channels) > 1 else ""


def _attention(
    record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Float[np.ndarray, "*space"]:
    """The map of the segmentation, else of the likeliest finding."""
    return arrays["attention"][0 if "segmentation" in arrays else _strongest(record)]


def _strongest(record: Mapping[str, Any]) -> int:
    probabilities = [each["probability"] for each in record.get("findings", {}).values()]
    return 1 + int(np.argmax(probabilities)) if probabilities else 0


def _slice(
    labels: Integer[np.ndarray, "*space"] | None, attention: Float[np.ndarray, "*space"]
) -> int | None:
    if attention.ndim == 2:
        return None
    shown = labels > 0 if labels is not None and (labels > 0).any() else attention
    return int(np.argmax(shown.sum((0, 1))))


def _outline(rgb: UInt8[np.ndarray, "h w 3"], labels: Integer[np.ndarray, "h w"]) -> None:
    for value in np.unique(labels[labels > 0]):
        color = matplotlib.colors.to_rgb(STRUCTURES[(int(value) - 1) % len(STRUCTURES)])
        edge = find_boundaries(labels == value, mode="inner")
        rgb[edge] = np.round(255 * np.array(color)).astype(np.uint8)


def _tags(labels: Integer[np.ndarray, "h w"]) -> tuple[Tag, ...]:
    places = {int(value): innermost(labels == value) for value in np.unique(labels[labels > 0])}
    height, width = labels.shape
    return tuple(
        Tag(str(k), 100 * column / width, 100 * row / height) for k, (row, column) in places.items()
    )


def _panel(
    name: str, gray: UInt8[np.ndarray, "h w"], values: Float[np.ndarray, "h w"], aspect: float
) -> Panel:
    low, high = 0.0, max(float(np.percentile(values, 99.5)), 1e-6)
    explained = EXPLAINED[name]
    if name == "attention":
        low, high = color_range([values], robust=0.5)
        explained = flat(values) or explained
    share = np.clip((values - low) / (high - low), 0, 1)
    color = matplotlib.colormaps[COLORMAPS[name]](share)[..., :3]
    weight = np.clip(0.1 + 0.9 * share, 0, 0.9)[..., None]
    mixed = (1 - weight) * gray[..., None] + 255 * weight * color
    rgb = mixed.round().astype(np.uint8)
    return Panel(name, rgb, aspect, explained, f"{low:.2g}", f"{high:.2g}", gradient(name))
