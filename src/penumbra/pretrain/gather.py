"""Rows of every rank, with gradients that find their way home."""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed


def world() -> tuple[int, int]:
    """(rank, ranks) of this process; (0, 1) when nothing is distributed."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gather_rows(rows: Shaped[Tensor, "n *rest"]) -> Shaped[Tensor, "m *rest"]:
    """The rows of all ranks, in rank order; every rank must bring equally many.

    The backward pass sums what all ranks ask of a row, so with the usual convention (each rank
    averages over its own anchors, parameter gradients are averaged over ranks) the result is the
    gradient of the loss over the global batch. The identity in a single process.
    """
    return rows if world()[1] == 1 else _Gather.apply(rows)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        parts = [torch.empty_like(rows) for _ in range(world()[1])]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        distributed.all_reduce(total)
        start = world()[0] * ctx.rows
        return total[start : start + ctx.rows]
