"""Freed memory stays with the process that will ask for it again."""

import ctypes
import sys

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
