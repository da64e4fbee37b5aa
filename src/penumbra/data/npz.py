"""Arrays in npz archives: what their headers claim, read before anything is allocated."""

import math
import zipfile
import zlib

import numpy as np

BROKEN = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,  # encrypted, or packed in a way that is not implemented
    zlib.error,
    zipfile.BadZipFile,
)
"""What numpy and zipfile raise on damaged archives."""


def claim(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], int]:
    """Shape and bytes that the header of an array claims.

    Raises:
        ValueError: it is no array, holds pickled objects, or less than it claims.
    """
    with archive.open(member) as file:
        first = np.lib.format.read_magic(file) == (1, 0)
        read = (np.lib.format.read_array_header_2_0, np.lib.format.read_array_header_1_0)[first]
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    size = math.prod(shape) * dtype.itemsize
    if size > archive.getinfo(member).file_size:
        raise ValueError("it is shorter than its header claims")
    return shape, size
