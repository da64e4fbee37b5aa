"""Arrays in, arrays out: NumPy and torch are both welcome, NumPy does the counting."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = np.ndarray | Tensor


def as_numpy(array: Array) -> NDArray[Any]:
    """The same numbers as a NumPy array, without a copy where that is possible.

    NumPy has no bfloat16: such a tensor becomes float32.
    """
    if isinstance(array, Tensor):
        plain = array.detach().cpu()
        return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return np.asarray(array)


def evenly(count: int, most: int) -> list[int]:
    """Places of at most ``most`` of ``count`` things, evenly spread, both ends among them.

    Example:
        >>> evenly(10, 4), evenly(2, 8)
        ([0, 3, 6, 9], [0, 1])
    """
    return np.unique(np.linspace(0, count - 1, min(most, count)).round()).astype(int).tolist()
