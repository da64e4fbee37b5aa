"""Freed memory stays with the process that will ask for it again."""

import ctypes
import sys

KEPT = 2**30
"""Bytes of freed memory that stay, at most."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST = 2**25  # glibc takes no higher threshold


def keep_freed() -> None:
    """Let glibc keep up to ``KEPT`` bytes of what is freed; elsewhere nothing happens.

    Every pass through a network frees its feature maps. glibc hands them back to the kernel, which
    maps and zeroes them again in the next pass, 4 KiB at a time: a fifth of the time of attacking
    eight images on a CPU (docs/results/robustness.md), an eighth of that of eight posterior draws.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none
        libc.mallopt(_TRIM_THRESHOLD, KEPT)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST)
