"""The momentum encoder and its queue of past keys (He et al. 2020), for small batches."""

import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

NOBODY = -(2**62)
"""Id of a key whose patient is unknown: equal to no id of a running batch."""


class KeyQueue(nn.Module):
    """A ring of the last ``length`` keys with their ids; everything is in the state dict."""

    keys: Tensor
    ids: Tensor
    stored: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(length, width))
        self.register_buffer("ids", torch.full((length,), NOBODY, dtype=torch.int64))
        self.register_buffer("stored", torch.zeros((), dtype=torch.int64))

    def contents(self) -> tuple[Float[Tensor, "k d"], Int[Tensor, " k"]]:
        """The keys stored so far, unit length, and their ids. Copies: a later push is not seen."""
        filled = min(int(self.stored), len(self.keys))
        return self.keys[:filled].clone(), self.ids[:filled].clone()

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "n d"], ids: Int[Tensor, " n"]) -> None:
        """Overwrite the oldest keys. Ids below 0 (unknown patients) are stored as ``NOBODY``."""
        keys, ids = keys[-len(self.keys) :], ids[-len(self.keys) :]
        at = (self.stored + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[at] = functional.normalize(keys.float(), dim=1)
        self.ids[at] = torch.where(ids >= 0, ids, NOBODY)
        self.stored += len(keys)


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that no optimizer moves."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(key: nn.Module, query: nn.Module, *, momentum: float) -> None:
    """key <- momentum * key + (1 - momentum) * query for parameters; buffers are copied."""
    for k, q in zip(key.parameters(), query.parameters(), strict=True):
        k.lerp_(q.to(k.dtype), 1 - momentum)
    for mine, theirs in zip(key.buffers(), query.buffers(), strict=True):
        mine.copy_(theirs)
