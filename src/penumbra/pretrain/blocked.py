"""Row-wise log-sum-exp of a similarity matrix that is never stored.

Both functions visit the matrix tile by tile and compute tiles again in the backward pass, so memory
grows linearly with the number of rows. They are the whole cost of NT-Xent.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

SAFE_LOGIT = 60.0
"""Below this magnitude exp() and a sum of 1e11 such terms stay inside float32 without a shift."""

_CPU_TILE = 512  # 1 MiB of float32: a tile stays in the second-level cache between its passes
_GPU_TILE = 4096  # fewer launches; 64 MiB
_KEPT = 2**24  # elements, 64 MiB: the first tiles are kept for the backward pass, a fixed amount


def symmetric_logsumexp(rows: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    r"""$\log\sum_{j \ne i} \exp(r_i \cdot r_j)$ for every row; only half of the tiles are visited.

    The caller guarantees $|r_i \cdot r_j| \le$ ``SAFE_LOGIT``: no maximum is subtracted.
    """
    return _Symmetric.apply(rows)


def masked_logsumexp(
    anchors: Float[Tensor, "n d"],
    candidates: Float[Tensor, "m d"],
    *,
    anchor_ids: Int[Tensor, " n"],
    candidate_ids: Int[Tensor, " m"],
) -> Float[Tensor, " n"]:
    r"""$\log\sum_{j: id_j \ne id_i} \exp(a_i \cdot c_j)$; -inf for an anchor without candidates.

    The running maximum is subtracted, so that any logit size is safe.
    """
    return _Masked.apply(anchors, candidates, anchor_ids, candidate_ids)


def _tiles(rows: int, device: torch.device) -> list[slice]:
    size = _CPU_TILE if device.type == "cpu" else _GPU_TILE
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


class _Symmetric(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        sums = torch.zeros_like(rows[:, 0])
        kept, room = {}, _KEPT if rows.requires_grad else 0
        with torch.autocast(rows.device.type, enabled=False):
            for i, j in _upper(len(rows), rows.device):
                tile = _exponentials(rows, i, j)
                sums[i] += tile.sum(1)
                if i != j:
                    sums[j] += tile.sum(0)
                if tile.numel() <= room:
                    room -= tile.numel()
                    kept[i.start, j.start] = tile
        ctx.save_for_backward(rows, sums)
        ctx.kept = kept
        return sums.log()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        rows, sums = ctx.saved_tensors
        # d lse_i / d s_ij = E_ij / sum_i, and the tile (i, j) also serves the anchors of (j, i).
        weight = torch.where(sums > 0, grads[0] / sums, 0)
        out = torch.zeros_like(rows)
        with torch.autocast(rows.device.type, enabled=False):
            for i, j in _upper(len(rows), rows.device):
                tile = ctx.kept.pop((i.start, j.start), None)
                if tile is None:
                    tile = _exponentials(rows, i, j)
                tile *= weight[i, None] + weight[None, j]
                out[i].addmm_(tile, rows[j])
                if i != j:
                    out[j].addmm_(tile.T, rows[i])
        return out


def _upper(rows: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    blocks = _tiles(rows, device)
    for number, i in enumerate(blocks):
        for j in blocks[number:]:
            yield i, j


def _exponentials(rows: Tensor, i: slice, j: slice) -> Tensor:
    tile = (rows[i] @ rows[j].T).exp_()
    return tile.fill_diagonal_(0) if i == j else tile


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, candidates: Tensor, anchor_ids: Tensor, candidate_ids: Tensor
    ) -> Tensor:
        lse = torch.empty_like(anchors[:, 0])
        with torch.autocast(anchors.device.type, enabled=False):
            for i in _tiles(len(anchors), anchors.device):
                # The floor is finite so that a fully masked row gives exp(-inf - floor) = 0.
                top = torch.full_like(lse[i], -1e30)
                total = torch.zeros_like(top)
                for j in _tiles(len(candidates), anchors.device):
                    tile = _logits(anchors[i], candidates[j], anchor_ids[i], candidate_ids[j])
                    higher = torch.maximum(top, tile.amax(1))
                    total = total * (top - higher).exp()
                    total += (tile - higher[:, None]).exp_().sum(1)
                    top = higher
                lse[i] = top + total.log()
        ctx.save_for_backward(anchors, candidates, anchor_ids, candidate_ids, lse)
        return lse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        anchors, candidates, anchor_ids, candidate_ids, lse = ctx.saved_tensors
        finite = torch.where(lse.isfinite(), lse, torch.inf)
        to_anchors, to_candidates = torch.zeros_like(anchors), None
        if ctx.needs_input_grad[1]:
            to_candidates = torch.zeros_like(candidates)
        with torch.autocast(anchors.device.type, enabled=False):
            for i in _tiles(len(anchors), anchors.device):
                for j in _tiles(len(candidates), anchors.device):
                    tile = _logits(anchors[i], candidates[j], anchor_ids[i], candidate_ids[j])
                    tile = tile.sub_(finite[i, None]).exp_().mul_(grads[0][i, None])
                    to_anchors[i].addmm_(tile, candidates[j])
                    if to_candidates is not None:
                        to_candidates[j].addmm_(tile.T, anchors[i])
        return to_anchors, to_candidates, None, None


def _logits(
    anchors: Tensor, candidates: Tensor, anchor_ids: Tensor, candidate_ids: Tensor
) -> Tensor:
    same = anchor_ids[:, None] == candidate_ids[None, :]
    return (anchors @ candidates.T).masked_fill_(same, -torch.inf)
