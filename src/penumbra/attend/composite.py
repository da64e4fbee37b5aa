"""One map out of many: the levels' gates on the image grid, mixed by learned weights."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from penumbra.attend.gate import FEW, WIDE
from penumbra.nets.decoder import crop


def composite(
    attention: Sequence[Float[Tensor, "b m *_"]],
    beta_logits: Float[Tensor, " levels"],
    size: Sequence[int],
) -> Float[Tensor, "b m *space"]:
    """``A = sum_l softmax(beta)_l upsample(A^l)`` in [0, 1] (proposal 2.3.1).

    Cell i of level l covers voxels ``i * 2**l`` onwards: a level is enlarged by doubling, linearly,
    and cropped to the next finer one, so odd sizes shift nothing. Coarse levels are added before
    they are enlarged further: the full grid is written once.

    Raises:
        ValueError: there are no maps (a network without gates), or a map is not ``size / 2**l``.
    """
    if not attention:
        raise ValueError("no attention maps: the network was built with gates=False")
    for level, maps in enumerate(attention):
        expected = tuple(-(-n // 2**level) for n in size)
        if tuple(maps.shape[2:]) != expected:
            raise ValueError(
                f"attention level {level} is {tuple(maps.shape[2:])}; size {tuple(size)} needs "
                f"{expected} (maps run from finest to coarsest)"
            )
    beta, shown = beta_logits.softmax(0), attention[0].shape[1]
    total = beta[-1] * attention[-1]
    if shown > FEW:  # whole vectors of channels, as in the gate
        total = functional.pad(total, (0, 0) * len(size) + (0, -shown % WIDE))
    for maps, weight in zip(reversed(attention[:-1]), reversed(beta[:-1].unbind()), strict=True):
        total = _double(total, maps.shape[2:])
        total[:, :shown].addcmul_(weight, maps)
    return total[:, :shown]


def _double(maps: Tensor, size: Sequence[int]) -> Tensor:
    mode = "bilinear" if len(size) == 2 else "trilinear"
    grown = functional.interpolate(maps, scale_factor=2.0, mode=mode, align_corners=False)
    return crop(grown, size)
