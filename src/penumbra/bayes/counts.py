"""How many voxels every draw gives to every class, and how far the draws' foregrounds overlap.

Volumes with their credible intervals and the draws' disagreement follow from these counts, so that
no draw's label map outlives it: what stays of a draw is a bit per voxel, and that for one window.
"""

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

WORD = 64


class Counts:
    """Counts of T draws of one window, added draw by draw.

    Attributes:
        classes: [t, c] voxels of each class.
        shared: [t, t] voxels that are foreground (any class but 0) in both draws.

    Example:
        >>> counts = Counts(2, classes=3)
        >>> for labels in ([0, 1, 2], [0, 0, 2]):
        ...     counts.add(np.array(labels, dtype=np.uint8))
        >>> counts.classes.tolist(), counts.shared.tolist()
        ([[1, 1, 1], [2, 0, 1]], [[2, 1], [1, 1]])
    """

    def __init__(self, draws: int, *, classes: int) -> None:
        self.classes: Integer[np.ndarray, "t c"] = np.zeros((draws, classes), np.int64)
        self.shared: Integer[np.ndarray, "t t"] = np.zeros((draws, draws), np.int64)
        self._foregrounds: np.ndarray | None = None
        self._seen = 0

    def add(self, labels: UInt8[np.ndarray, "..."]) -> None:
        """The next draw's label map."""
        t, draws = self._seen, len(self.classes)
        self.classes[t] = [np.count_nonzero(labels == c) for c in range(self.classes.shape[1])]
        if self._foregrounds is None:
            self._foregrounds = np.zeros((draws, -(-labels.size // WORD)), np.uint64)
        bits = np.packbits(labels > 0)
        self._foregrounds[t].view(np.uint8)[: len(bits)] = bits
        both = self._foregrounds[: t + 1] & self._foregrounds[t]
        overlaps = np.bitwise_count(both).sum(1, dtype=np.int64)
        self.shared[t, : t + 1] = self.shared[: t + 1, t] = overlaps
        self._seen += 1


def most_probable(probabilities: Float[Tensor, "b c *space"]) -> UInt8[Tensor, "b *space"]:
    """``argmax`` over classes, the first of equals, where torch's own is slower than a decoder."""
    p, classes = probabilities.detach(), probabilities.shape[1]
    first = torch.arange(classes, 0, -1, dtype=torch.uint8, device=p.device)
    hit = (p == p.amax(1, keepdim=True)).view(torch.uint8)
    return classes - hit.mul_(first.view(-1, *[1] * (p.ndim - 2))).amax(1)
