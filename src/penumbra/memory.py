"""Freed memory stays with the process that will ask for it again."""

import ctypes
import math
import mmap
import sys

import numpy as np
import torch
from torch import Tensor

KEPT = 2**30
"""Bytes of freed memory that stay, at most."""

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h


def keep_freed() -> None:
    """Let glibc keep up to ``KEPT`` bytes of what is freed; elsewhere nothing happens.

    Every pass through a network frees its feature maps. glibc hands them back to the kernel, which
    maps and zeroes them again in the next pass, 4 KiB at a time: a fifth of the time of attacking
    eight images on a CPU (docs/results/robustness.md), a third of that of a CT's posterior draws.
    So nothing is mapped for itself, however large; what is freed below something in use stays.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none
        libc.mallopt(_TRIM_THRESHOLD, KEPT)
        libc.mallopt(_MMAP_MAX, 0)


def give_back() -> None:
    """Hand what ``keep_freed`` has kept so far to the system."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def zeros(*shape: int) -> Tensor:
    """Zeros in float32 that lie outside the heap, for the few arrays of a whole volume's size.

    They go back to the system at once when they are dropped, and leave no hole in what
    ``keep_freed`` keeps.
    """
    count = math.prod(shape)
    if not count:
        return torch.zeros(shape)
    if sys.platform == "win32":
        room = mmap.mmap(-1, 4 * count)
    else:
        room = mmap.mmap(-1, 4 * count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.from_numpy(np.frombuffer(room, dtype=np.float32)).view(shape)
