"""A page that shows what every family of views does to one image, at five severities."""

import html
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from penumbra.augment import INTENSITY, families, shift, to_display, two_views
from penumbra.augment.profile import Amount, profile_for
from penumbra.data.body import body_mask
from penumbra.data.geometry import load_volume
from penumbra.data.picture import axial, data_url
from penumbra.data.preprocess import PERCENTILES
from penumbra.errors import DataError
from penumbra.files import write_text
from penumbra.types import Modality

SEVERITIES = (1, 2, 3, 4, 5)
PAIRS = 5
_SHOWN = 160
"""Pixels of a picture's longer side; sharper pictures are shown at their own size."""

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;padding:1.2rem;max-width:74rem;
 background:#fff;color:#1c2024}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.05rem;margin:1.6rem 0 .1rem}
p{margin:.15rem 0 .5rem;color:#5b6470;max-width:60rem}
.row{display:grid;grid-template-columns:repeat(var(--n),1fr);gap:.35rem}
figure{margin:0}img{width:100%;display:block;border-radius:3px;background:#000}
figcaption{font-size:.78rem;color:#5b6470;text-align:center;padding:.15rem 0}
@media(prefers-color-scheme:dark){body{background:#14171a;color:#e8eaed}
 p,figcaption{color:#9aa4af}}
@media(max-width:44rem){.row{grid-template-columns:repeat(3,1fr)}}
"""


@dataclass(frozen=True)
class Strip:
    """One row of the page: pictures in display units with a caption each."""

    title: str
    text: str
    pictures: tuple[Float[np.ndarray, "rows columns"], ...]
    captions: tuple[str, ...]


def gallery(
    image: Path | Float[np.ndarray, "*space"],
    modality: Modality,
    out: Path,
    *,
    spacing_mm: tuple[float, float] | None = None,
) -> Path:
    """The path of a self-contained HTML page with every family at severities 1-5, and some pairs.

    A volume is shown by its axial slice with the largest body. The page always shows the same
    draws for the same image.

    Args:
        image: a file, or an array in the units of its modality (CT in HU).
        spacing_mm: in-plane voxel size of an array; a file brings its own.

    Raises:
        DataError: the file cannot be read, or the array is not two- or three-dimensional.
    """
    name = image.name if isinstance(image, Path) else "array"
    picture, spacing = _slice(image, modality, spacing_mm)
    rows = strips(picture, modality, spacing)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Views of {html.escape(name)}"
        f"</title><meta name=viewport content='width=device-width'><style>{_STYLE}</style>",
        f"<h1>Views of {html.escape(name)}</h1><p>{_MODALITY[modality]}, "
        f"{picture.shape[0]} by {picture.shape[1]} voxels of {spacing[0]:.2g} by {spacing[1]:.2g} "
        "mm. The first picture of every row is the original.</p>",
        *(_html(row) for row in rows),
        "</html>",
    ]
    write_text(out, "\n".join(parts))
    return out


def strips(
    picture: Float[np.ndarray, "rows columns"], modality: Modality, spacing: tuple[float, float]
) -> list[Strip]:
    """The rows of the page for one slice in stored units."""
    table = profile_for(modality).table
    image = torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32))[None, None]
    body = torch.from_numpy(body_mask(picture[None].astype(np.float32), modality=modality))[None]
    shown = _show(image, modality)
    rows = []
    for family in ("elastic", "zoom", "rotation", *families(modality), "masking"):
        row = table[family]
        changed = [
            shift(
                image,
                family=family,
                severity=severity,
                modality=modality,
                generator=torch.Generator().manual_seed(1),
                body=body,
                spacing_mm=spacing,
            )
            for severity in SEVERITIES
        ]
        captions = ("original", *(f"{i}: {_number(v)}" for i, v in enumerate(row.severity, 1)))
        title = family.replace("_", " ")
        pictures = (shown, *(_show(one, modality) for one in changed))
        rows.append(Strip(title, _explain(family, row, modality), pictures, captions))
    rows.append(_pairs(image, body, modality, spacing))
    return rows


def _pairs(
    image: Tensor,
    body: Bool[Tensor, "1 rows columns"],
    modality: Modality,
    spacing: tuple[float, float],
) -> Strip:
    """Contrastive pairs as pre-training sees them."""
    batch = image.expand(PAIRS, *image.shape[1:])
    first, second = two_views(
        batch,
        modality=modality,
        generator=torch.Generator().manual_seed(2),
        body=body.expand(PAIRS, *body.shape[1:]),
        spacing_mm=spacing,
    )
    pictures = tuple(
        _show(view.image[i : i + 1], modality) for view in (first, second) for i in range(PAIRS)
    )
    captions = (*("keeps its protocol",) * PAIRS, *("may change it",) * PAIRS)
    text = "One column is one pair: the two views of pre-training, every family together."
    return Strip("pairs", text, pictures, captions)


def _slice(
    image: Path | Float[np.ndarray, "*space"],
    modality: Modality,
    spacing_mm: tuple[float, float] | None,
) -> tuple[Float[np.ndarray, "rows columns"], tuple[float, float]]:
    """One slice in stored units and its voxel size."""
    top = None
    if isinstance(image, Path):
        volume = load_volume(image)
        array, spacing, top = volume.array, volume.spacing_mm, volume.full_scale
    else:
        array, spacing = image, spacing_mm or (1.0, 1.0)
    if array.ndim not in (2, 3) or min(array.shape) < 1:
        raise DataError(f"views need an image of 2 or 3 dimensions, not shape {array.shape}")
    array = np.nan_to_num(np.asarray(array, dtype=np.float32))
    body = body_mask(array[None], modality=modality)
    if modality == "mri":
        low, high = np.percentile(array[body], PERCENTILES)
        array = np.clip((array - low) / max(high - low, 1e-6), 0, 1)
    elif modality == "xray":
        array = np.clip(array / (top or max(float(array.max()), 1e-6)), 0, 1)
    if array.ndim == 3:
        array = axial(array, int(body.sum((0, 1)).argmax()))
        spacing = (spacing[1], spacing[0])
    return array, (float(spacing[0]), float(spacing[1]))


_MODALITY = {"mri": "MRI", "ct": "CT, abdominal window", "xray": "Radiograph"}


def _show(image: Tensor, modality: Modality) -> Float[np.ndarray, "rows columns"]:
    return to_display(image, modality=modality)[0, 0].clamp(0, 1).numpy()


def _number(value: float | int) -> str:
    return f"{value:g}" if value < 1e4 else f"{value:.1e}".replace("e+0", "e")


def _explain(family: str, row: Amount, modality: Modality) -> str:
    group = "intensity" if family in INTENSITY[modality] else "acquisition"
    if family not in families(modality):
        group = "masking" if family == "masking" else "geometry"
    span = f"{_number(row.low)} to {_number(row.high)}"
    return f"{group}; {row.unit}; training draws {span}. {row.why[0].upper()}{row.why[1:]}."


def _html(row: Strip) -> str:
    columns = PAIRS if row.title == "pairs" else len(row.pictures)
    figures = "".join(
        f"<figure><img alt='{html.escape(f'{row.title}, {caption}')}' src='{_data(picture)}'>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for picture, caption in zip(row.pictures, row.captions, strict=True)
    )
    return (
        f"<h2>{html.escape(row.title.capitalize())}</h2><p>{html.escape(row.text)}</p>"
        f"<div class=row style='--n:{columns}'>{figures}</div>"
    )


def _data(picture: Float[np.ndarray, "rows columns"]) -> str:
    factor = max(1, math.ceil(_SHOWN / max(picture.shape)))
    big = (255 * picture).round().astype(np.uint8).repeat(factor, 0).repeat(factor, 1)
    return data_url(big)
