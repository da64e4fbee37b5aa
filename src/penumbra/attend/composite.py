"""One map out of many: the levels' gates on the image grid, mixed by learned weights."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from penumbra.nets.decoder import crop


def composite(
    attention: Sequence[Float[Tensor, "b m *_"]],
    beta_logits: Float[Tensor, " levels"],
    size: Sequence[int],
) -> Float[Tensor, "b m *space"]:
    """``A = sum_l softmax(beta)_l upsample(A^l)`` in [0, 1] (proposal 2.3.1).

    Cell i of level l covers voxels ``i * 2**l`` onwards, so a level is enlarged by ``2**l`` and
    cropped to ``size``: odd sizes shift nothing.

    Raises:
        ValueError: there are no maps (a network without gates), or a map is not ``size / 2**l``.
    """
    if not attention:
        raise ValueError("no attention maps: the network was built with gates=False")
    total: Tensor | None = None
    for level, (maps, weight) in enumerate(zip(attention, beta_logits.softmax(0), strict=True)):
        expected = tuple(-(-n // 2**level) for n in size)
        if tuple(maps.shape[2:]) != expected:
            raise ValueError(
                f"attention level {level} is {tuple(maps.shape[2:])}; size {tuple(size)} needs "
                f"{expected} (maps run from finest to coarsest)"
            )
        term = weight * _enlarge(maps, 2**level, size)
        total = term if total is None else total + term
    assert total is not None
    return total


def _enlarge(maps: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    if factor == 1:
        return maps
    mode = "bilinear" if len(size) == 2 else "trilinear"
    grown = functional.interpolate(maps, scale_factor=float(factor), mode=mode, align_corners=False)
    return torch.clamp(crop(grown, size), 0, 1)
