"""Arrays in, arrays out: NumPy and torch are both welcome, NumPy does the counting."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = np.ndarray | Tensor


def as_numpy(array: Array) -> NDArray[Any]:
    """The same numbers as a NumPy array, without a copy where that is possible."""
    if isinstance(array, Tensor):
        return array.detach().cpu().numpy()
    return np.asarray(array)
