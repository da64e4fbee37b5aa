"""Maps in CheXlocalize's own formats, so that its published evaluation can judge them.

Its radiologists' outlines are read by ``penumbra.data.masks``.
"""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from penumbra.data.masks import CHEXLOCALIZE_NAMES


def encode_rle(mask: Bool[np.ndarray, "rows columns"]) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths, the inverse of ``data.masks.decode_rle``.

    Column by column, background first; from the third run on, differences to the run before the
    last; five bits per character, lowest first.

    Example:
        >>> encode_rle(np.array([[False, True], [True, True]]))
        {'size': [2, 2], 'counts': '13'}
    """
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)
    counts = []
    for i, run in enumerate(runs):
        counts.append(_five_bits(run - runs[i - 2] if i > 2 else run))
    return {"size": [int(n) for n in mask.shape], "counts": "".join(counts)}


def write_segmentations(
    path: Path, masks: Mapping[str, Mapping[str, Bool[np.ndarray, "rows columns"]]]
) -> None:
    """Film -> finding -> mask, as ``eval.py --pred_path`` of CheXlocalize reads it (JSON).

    Masks are in the film's full size; findings get CheXlocalize's names.
    """
    tree = {
        film: {_theirs(finding): encode_rle(mask) for finding, mask in found.items()}
        for film, found in masks.items()
    }
    path.write_text(json.dumps(tree))


def write_heat_map(
    folder: Path,
    film: str,
    finding: str,
    heat: Float[Tensor, "rows columns"],
    *,
    probability: float,
    full_size: tuple[int, int],
) -> Path:
    """One heat map as the pickle that ``heatmap_to_segmentation.py`` of CheXlocalize reads.

    Written only, never read back: Penumbra does not unpickle files. The format holds the map on
    its own grid ``[1, 1, rows, columns]``, the probability, and the film's ``(columns, rows)``.

    Args:
        full_size: rows and columns of the original film.
    """
    path = folder / f"{film}_{_theirs(finding)}_map.pkl"
    record = {
        "map": heat.detach().cpu()[None, None].clone(),
        "prob": probability,
        "task": _theirs(finding),
        "cxr_dims": (full_size[1], full_size[0]),
    }
    with path.open("wb") as file:
        pickle.dump(record, file)
    return path


def full_size_mask(
    heat: Float[Tensor, "rows columns"], *, threshold: float, size: tuple[int, int]
) -> Bool[np.ndarray, "full_rows full_columns"]:
    """The heat map upsampled to the film, then cut at a threshold chosen on validation films."""
    large = torch.nn.functional.interpolate(
        heat[None, None].float(), size=size, mode="bilinear", align_corners=False
    )
    return (large[0, 0] > threshold).cpu().numpy()


def _theirs(finding: str) -> str:
    return CHEXLOCALIZE_NAMES.get(finding, finding)


def _five_bits(value: int) -> str:
    text = ""
    while True:
        bits, value = value & 0x1F, value >> 5
        # Done when what is left is only the sign that the last bit (0x10) already tells.
        more = value != (-1 if bits & 0x10 else 0)
        text += chr(48 + (bits | 0x20 if more else bits))
        if not more:
            return text
