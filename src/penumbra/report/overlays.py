"""Sample scans with what the model drew over them: contours, and maps on common scales."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from skimage.measure import find_contours

from penumbra.attend.scale import (
    COLORMAPS,
    EXPLAINED,
    STRUCTURES,
    color_range,
    flat,
    gradient,
)
from penumbra.data.picture import data_url, innermost
from penumbra.report.read import Sample

MOST_PIXELS = 400


@dataclass(frozen=True, slots=True)
class Contour:
    """An outline as an SVG path, in pixels; the reference is drawn dashed.

    ``number`` stands at ``tag`` (x, y) where there are more classes than colors.
    """

    path: str
    color: str
    label: str
    reference: bool
    number: str
    tag: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One map over the image."""

    name: str
    explained: str
    png: str
    low: str
    high: str
    gradient: str


@dataclass(frozen=True, slots=True)
class Card:
    """One sample as the page shows it."""

    name: str
    title: str
    height: int
    width: int
    png: str
    contours: tuple[Contour, ...]
    panels: tuple[Panel, ...]
    findings: Mapping[str, Mapping[str, float]]

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Structure and color, once each."""
        drawn = sorted(self.contours, key=lambda c: (int(c.number or 0), c.label))
        return list(dict.fromkeys((c.label, c.color) for c in drawn))

    @property
    def tags(self) -> list[Contour]:
        """The outlines that carry a number: the prediction's, the reference's of what it missed."""
        return list({c.label: c for c in self.contours if c.number}.values())

    @property
    def has_spread(self) -> bool:
        return any("epistemic" in values for values in self.findings.values())

    @property
    def has_reference(self) -> bool:
        return any(contour.reference for contour in self.contours)


def cards(samples: Sequence[Sample]) -> list[Card]:
    """Every sample, each map on one scale over all samples so that they can be compared."""
    ranges = {name: _range(samples, name) for name in COLORMAPS}
    return [
        Card(
            name=sample.name,
            title=sample.title,
            height=sample.image.shape[0],
            width=sample.image.shape[1],
            png=_png(_gray(sample.image)),
            contours=(*_contours(sample, reference=True), *_contours(sample, reference=False)),
            panels=tuple(_panel(name, sample.maps[name], ranges[name]) for name in sample.maps),
            findings=sample.findings,
        )
        for sample in samples
    ]


def _range(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """Uncertainty starts at 0; attention is shown between its own extremes, which are written."""
    maps = [sample.maps[name] for sample in samples if name in sample.maps]
    if name == "attention" and maps:
        return color_range(maps, robust=0.5)
    high = max((float(np.nanpercentile(m, 99.5)) for m in maps), default=0.0)
    return 0.0, max(high, 1e-6)


def _panel(name: str, values: Float[np.ndarray, "h w"], scale: tuple[float, float]) -> Panel:
    low, high = scale
    share = np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0, 1)
    rgba = matplotlib.colormaps[COLORMAPS[name]](share)
    rgba[..., 3] = np.clip(0.1 + 1.2 * share, 0, 0.95)  # calm regions stay anatomy
    return Panel(
        name=name,
        explained=(flat(values) if name == "attention" else "") or EXPLAINED[name],
        png=_png((255 * rgba).round().astype(np.uint8)),
        low=f"{low:.2f}" if low else "0",
        high=f"{high:.2f}" if low else f"{high:.2g}",
        gradient=gradient(name),
    )


def _contours(sample: Sample, *, reference: bool) -> list[Contour]:
    labels = sample.reference if reference else sample.prediction
    if labels is None:
        return []
    many, found = len(sample.classes) - 1 > len(STRUCTURES), []
    for value in (v for v in map(int, np.unique(labels)) if v > 0):
        row, column = innermost(labels == value)
        name = sample.classes[value] if value < len(sample.classes) else f"class {value}"
        found.append(
            Contour(
                path=_outline(labels == value),
                color=STRUCTURES[(value - 1) % len(STRUCTURES)],
                label=f"{value} {name}" if many else name,
                reference=reference,
                number=str(value) if many else "",
                tag=(column, row),
            )
        )
    return found


def _outline(mask: Bool[np.ndarray, "h w"]) -> str:
    """The mask's borders at pixel edges' midpoints; a mask at the rim is closed along it."""
    lines = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    return " ".join(
        "M" + "L".join(f"{column - 0.5:.1f} {row - 0.5:.1f}" for row, column in line) + "Z"
        for line in lines
    )


def _gray(image: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    return (255 * np.clip(np.nan_to_num(image), 0, 1)).round().astype(np.uint8)


def _png(pixels: UInt8[np.ndarray, "..."]) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))  # the page stretches it back to its own size
    return data_url(picture)
