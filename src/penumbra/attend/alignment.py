"""Losses that teach attention: with the uncertainty, with the experts, with the anatomy.

Proposal 2.3.2 and 2.3.3. None of them carries its lambda: the training loop applies it once.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Direction = Literal["align", "reliable", "off"]

FLOOR = 1e-3
"""Added to a map before it is normalised, as a share of its mean over the region."""


def attention_loss(
    attention: Float[Tensor, "b m *space"],
    uncertainty: Float[Tensor, "b m *space"],
    region: Bool[Tensor, "b *space"] | Float[Tensor, "b *space"],
    *,
    direction: Direction,
    eta: float,
    u_ref: float,
) -> Float[Tensor, ""]:
    r"""Distance of the attention from a target that the epistemic uncertainty draws, in nats.

    $$ L = \overline{\, g \, KL\big( P_A \,\|\, \mathrm{sg}((1-\eta) P_T + \eta P_{ROI}) \big)},
       \quad g = \mathrm{sg} \min(1, \bar U / u_{ref}) $$

    over the region of interest (body or organ, one for all maps), a mean over images and maps.
    ``align``: T = U, the proposal's formula; ``reliable``: T = 1 - min(1, U / u_ref), the
    meaning of its text (look where you are sure); ``off``: 0. The uncertainty and the target get
    no gradient. Attention proportional to the target gives 0; an image without uncertainty or
    without a region counts 0. ``u_ref`` is a fixed validation quantile of U.

    Raises:
        ValueError: ``u_ref`` is not positive, or ``eta`` is outside [0, 1].
    """
    if u_ref <= 0:
        raise ValueError(f"u_ref must be a positive reference uncertainty, got {u_ref}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is a share in [0, 1], got {eta}")
    region = region[:, None].float().expand_as(attention).flatten(2)
    u = uncertainty.detach().float().flatten(2)
    match direction:
        case "off":
            return attention.new_zeros(())
        case "align":
            target = u
        case "reliable":
            target = 1 - (u / u_ref).clamp(max=1)
    size = region.sum(-1, keepdim=True)
    uniform = region / size.clamp(min=1e-12)
    mixed = (1 - eta) * _distribution(target, region) + eta * uniform
    shown = _distribution(attention.float().flatten(2), region)
    divergence = torch.where(region > 0, shown * (_log(shown) - _log(mixed)), 0.0).sum(-1)
    amount = ((u * region).sum(-1) / size[..., 0].clamp(min=1e-12) / u_ref).clamp(max=1)
    return (amount * divergence).mean()


def clinical_loss(
    gate: Float[Tensor, "b m *grid"],
    expert: Float[Tensor, "b m *space"],
    annotated: Bool[Tensor, "b m"],
) -> Float[Tensor, ""]:
    r"""Class-balanced squared error between a gate and the experts' regions.

    $$ L = \overline{\tfrac12 \operatorname*{mean}_{M > 1/2} (A - M)^2
                   + \tfrac12 \operatorname*{mean}_{M \le 1/2} (A - M)^2} $$

    a mean over annotated (image, map) pairs; the others have no influence. Balanced, because an
    empty map would be nearly optimal for a small lesion otherwise: here it costs 1/2. A pair whose
    mask has one side only is the mean over that side. ``expert`` is the mean of the readers in
    [0, 1] and is area-averaged to the gate's grid. No annotated pair: 0. Proposal 2.3.3.

    Example:
        >>> lesion = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
        >>> float(clinical_loss(torch.zeros(1, 1, 4), lesion, torch.tensor([[True]])))
        0.5
    """
    target = area_average(expert.float(), gate.shape[2:]).flatten(2)
    target = torch.where(annotated[..., None], target, 0.0)  # an unannotated map may hold anything
    error = (gate.float().flatten(2) - target).square()
    inside = (target > 0.5).float()
    halves = torch.stack([_masked_mean(error, inside), _masked_mean(error, 1 - inside)])
    present = torch.stack([inside.any(-1), (1 - inside).any(-1)]).float()
    pairs = (halves * present).sum(0) / present.sum(0)
    return (pairs * annotated).sum() / annotated.sum().clamp(min=1)


def anatomy_loss(
    attention: Float[Tensor, "b m *space"],
    body: Bool[Tensor, "b *space"],
    *,
    leak: float = 0.5,
    width: int = 2,
) -> Float[Tensor, ""]:
    r"""Share of the attention outside the organ or body, plus what leaks across its boundary.

    $$ L = \overline{ \frac{\sum A (1 - B)}{\sum A}
         + \text{leak} \cdot \frac{\sum A S_{out}}{\sum A (S_{in} + S_{out})} } $$

    with S_out, S_in the shells of ``width`` voxels on both sides of the boundary: the second term
    does not fade when the body is large. In [0, 1 + leak]. Images without a body do not count; a
    shell that is empty (the body fills the patch) leaks 0. Proposal 2.3.3.

    Example:
        >>> body = torch.tensor([[True, True, False, False]])
        >>> float(anatomy_loss(body[:, None].float(), body))
        0.0
    """
    shown = attention.float()
    inside = body[:, None].float()
    total = shown.flatten(2).sum(-1).clamp(min=1e-12)
    outside = (shown * (1 - inside)).flatten(2).sum(-1) / total
    shell_out = _dilate(inside, width) - inside
    shell_in = _dilate(1 - inside, width) * inside
    leaked = (shown * shell_out).flatten(2).sum(-1)
    kept = (shown * shell_in).flatten(2).sum(-1)
    terms = outside + leak * leaked / (leaked + kept).clamp(min=1e-12)
    counted = body.flatten(1).any(1, keepdim=True).float().expand_as(terms)
    return (terms * counted).sum() / counted.sum().clamp(min=1)


def area_average(
    mask: Float[Tensor, "b m *space"], size: tuple[int, ...]
) -> Float[Tensor, "b m *grid"]:
    """A mask on a coarser grid, each cell the mean of what it covers: partial cover stays visible.

    Example:
        >>> area_average(torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), (2,))
        tensor([[[0.5000, 0.0000]]])
    """
    if tuple(mask.shape[2:]) == tuple(size):
        return mask
    return F.interpolate(mask, size=tuple(size), mode="area")


def _dilate(mask: Tensor, width: int) -> Tensor:
    pool = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}[mask.ndim]
    return pool(mask, 2 * width + 1, stride=1, padding=width)


def _distribution(values: Tensor, region: Tensor) -> Tensor:
    inside = values * region
    size = region.sum(-1, keepdim=True).clamp(min=1e-12)
    floor = FLOOR * inside.sum(-1, keepdim=True) / size + 1e-12
    inside = inside + floor * region
    return inside / inside.sum(-1, keepdim=True).clamp(min=1e-12)


def _log(probability: Tensor) -> Tensor:
    return probability.clamp(min=1e-20).log()


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(-1) / mask.sum(-1).clamp(min=1)
