"""Pre-trained weights for an encoder with other channels or another dimension."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from penumbra.errors import DataError

_PREFIX = "encoder."


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of every tensor.

    Attributes:
        loaded: copied as they are.
        adapted: copied after a change of shape -> what was done.
        fresh: kept from the encoder's own initialisation -> why.
        unused: in the file, but without a place in the encoder.
        share: of the encoder's parameters that the file has provided, by number of values.
    """

    loaded: tuple[str, ...]
    adapted: Mapping[str, str]
    fresh: Mapping[str, str]
    unused: tuple[str, ...]
    share: float

    def __str__(self) -> str:
        lines = [
            f"{self.share:.1%} of the encoder's parameters come from the pre-trained file: "
            f"{len(self.loaded)} tensors as they are, {len(self.adapted)} adapted, "
            f"{len(self.fresh)} fresh, {len(self.unused)} unused"
        ]
        lines += [f"  adapted {name}: {how}" for name, how in self.adapted.items()]
        lines += [f"  fresh   {name}: {why}" for name, why in self.fresh.items()]
        lines += [f"  unused  {name}" for name in self.unused]
        return "\n".join(lines)


def adapt(state: Mapping[str, Tensor], encoder: nn.Module) -> LoadReport:
    """Load pre-trained weights into ``encoder`` in place, changing shapes where that is defined.

    - *Dimension*, 2-D to 3-D: the kernel becomes the central axial plane (last axis) of a 3-D
      kernel that is zero elsewhere, so at first the 3-D encoder sees each slice exactly as the
      2-D one did. 3-D to 2-D: kernels are summed over the last axis, the answer to a volume that
      does not change along it.
    - *Image channels*: weights are averaged over the old channels, given to every new one and
      scaled by old/new, so that the answer to a grey image copied to all channels stays the same.
    - Every other difference leaves the encoder's own initial weights, and says so.

    Args:
        state: state dict of an encoder, or of a network that holds one as ``encoder``.

    Returns:
        A report that names every tensor; ``print(report)`` is meant for users.

    Raises:
        DataError: not a single weight fits; the file belongs to another architecture.
    """
    source = _encoder_part(state)
    target = encoder.state_dict()
    same_outputs = all(
        source[name].shape[0] == value.shape[0]
        for name, value in target.items()
        if name in source and value.ndim >= 4 and source[name].ndim >= 4
    )
    loaded: list[str] = []
    adapted: dict[str, str] = {}
    fresh: dict[str, str] = {}
    for name, value in target.items():
        if name not in source:
            fresh[name] = "not in the file"
        elif source[name].shape == value.shape:
            value.copy_(source[name])
            loaded.append(name)
        else:
            weight, notes = _reshape(source[name], value.shape, image_channels=same_outputs)
            if weight is None:
                fresh[name] = notes
            else:
                value.copy_(weight)
                adapted[name] = notes
    parameters = {name: p.numel() for name, p in encoder.named_parameters()}
    provided = sum(n for name, n in parameters.items() if name not in fresh)
    if provided == 0:
        raise DataError(
            f"none of the {len(source)} pre-trained tensors fits the encoder; it expects names "
            f"like '{next(iter(target), '')}', the file has names like '{next(iter(source), '')}'"
        )
    return LoadReport(
        loaded=tuple(loaded),
        adapted=adapted,
        fresh=fresh,
        unused=tuple(name for name in source if name not in target),
        share=provided / sum(parameters.values()),
    )


def _encoder_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    nested = {n.removeprefix(_PREFIX): v for n, v in state.items() if n.startswith(_PREFIX)}
    return nested or dict(state)


def _reshape(
    weight: Tensor, shape: torch.Size, *, image_channels: bool
) -> tuple[Tensor | None, str]:
    """The weight in another shape and how it got there, or None and why it did not."""
    difference = f"{list(weight.shape)} in the file, {list(shape)} in the encoder"
    if weight.ndim < 4 or len(shape) < 4:
        return None, difference
    notes = []
    if weight.ndim == 4 and len(shape) == 5:
        planes = weight.new_zeros(*weight.shape, shape[-1])
        planes[..., shape[-1] // 2] = weight
        weight = planes
        notes.append(f"2-D kernel put in the central one of {shape[-1]} axial planes")
    elif weight.ndim == 5 and len(shape) == 4:
        notes.append(f"3-D kernel summed over its {weight.shape[-1]} axial planes")
        weight = weight.sum(-1)
    old, new = weight.shape[1], shape[1]
    # When all outputs agree, only the image itself can have another number of channels.
    if old != new and image_channels:
        weight = weight.mean(1, keepdim=True).repeat_interleave(new, 1) * (old / new)
        notes.append(f"{old} image channels averaged and spread over {new}")
    if weight.shape != shape:
        return None, difference
    return weight, "; ".join(notes)
