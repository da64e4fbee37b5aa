"""NT-Xent (proposal 2.1.1, METHOD 1.1): contrast between two views of every image."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from penumbra.pretrain.blocked import SAFE_LOGIT, masked_logsumexp, symmetric_logsumexp


def nt_xent(
    z_a: Float[Tensor, "b d"],
    z_b: Float[Tensor, "b d"],
    *,
    temperature: float,
    patient: Int[Tensor, " b"] | None = None,
    symmetric: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    r"""The normalised temperature-scaled cross-entropy of two batches of embeddings.

    $$ L = \frac{1}{2B} \sum_a \Big[ -\frac{s(a, \pi(a))}{\tau}
           + \log \sum_{b \ne a,\ b \notin FN(a)} e^{s(a, b) / \tau} \Big] $$

    over the 2B embeddings, with s the cosine similarity and pi(a) the other view of the same image
    (proposal 2.1.1; Chen et al. 2020). The matrix of similarities is never stored: memory is linear
    in the batch. Computed in float32 whatever comes in. ``symmetric=False, reduction="sum"`` is the
    proposal's one-sided sum, with the first view as anchors.

    Args:
        temperature: tau > 0.
        patient: images that share a value are no negatives of each other (FN); -1 shares with none.
        symmetric: both views are anchors; otherwise only the first.

    Returns:
        A scalar, or one value per anchor (all of view a, then all of view b) for ``"none"``.

    Raises:
        ValueError: the temperature is not positive or the batch is empty.

    Example:
        >>> z = torch.ones(4, 8)  # collapsed: every embedding is the same
        >>> loss = nt_xent(z, z, temperature=0.1)
        >>> bool(torch.isclose(loss, torch.tensor(7.0).log()))  # log(2B - 1)
        True
    """
    if len(z_a) == 0:
        raise ValueError("nt_xent needs at least one pair of embeddings, got an empty batch")
    rows = _scaled(torch.cat([z_a, z_b]), temperature)
    if patient is None and 1 / temperature <= SAFE_LOGIT:
        positive = (rows[: len(z_a)] * rows[len(z_a) :]).sum(1)
        losses = symmetric_logsumexp(rows) - positive.repeat(2)
    else:
        partner = rows.roll(len(z_a), 0)
        ids = image_ids(len(z_a), patient, device=rows.device).repeat(2)
        losses = _against(rows, partner, rows, ids, ids)
    return _reduce(losses if symmetric else losses[: len(z_a)], reduction)


def contrast(
    anchors: Float[Tensor, "n d"],
    positives: Float[Tensor, "n d"],
    candidates: Float[Tensor, "m d"],
    *,
    anchor_ids: Int[Tensor, " n"],
    candidate_ids: Int[Tensor, " m"],
    temperature: float,
) -> Float[Tensor, " n"]:
    r"""NT-Xent of each anchor against any candidates: other ranks, momentum keys, a queue.

    The denominator holds the positive and every candidate whose id differs from the anchor's, so a
    candidate set that includes the anchor and its positive themselves needs no further care.

    Raises:
        ValueError: the temperature is not positive.
    """
    a, p, c = (_scaled(z, temperature) for z in (anchors, positives, candidates))
    # Both embeddings carry 1/sqrt(tau), so that their product is s / tau.
    return _against(a, p, c, anchor_ids, candidate_ids)


def image_ids(
    images: int,
    patient: Int[Tensor, " b"] | None = None,
    *,
    device: torch.device | None = None,
    start: int = 0,
) -> Int[Tensor, " b"]:
    """Ids for ``contrast``: the patient where one is known (>= 0), else unique and below -1.

    Args:
        start: number of the first image, to keep the ids of several ranks apart.
    """
    unique = -2 - start - torch.arange(images, device=device)
    return unique if patient is None else torch.where(patient >= 0, patient, unique)


def _scaled(z: Tensor, temperature: float) -> Tensor:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return functional.normalize(z.float(), dim=1) * temperature**-0.5


def _against(
    rows: Tensor, partner: Tensor, others: Tensor, ids: Tensor, other_ids: Tensor
) -> Tensor:
    positive = (rows * partner).sum(1)
    negatives = masked_logsumexp(rows, others, anchor_ids=ids, candidate_ids=other_ids)
    return torch.logaddexp(negatives, positive) - positive


def _reduce(losses: Tensor, reduction: Literal["mean", "sum", "none"]) -> Tensor:
    match reduction:
        case "mean":
            return losses.mean()
        case "sum":
            return losses.sum()
        case "none":
            return losses
