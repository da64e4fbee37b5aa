"""MetaImage (.mha, .mhd): the format of BraTS 2013 and 2015."""

import zlib
from pathlib import Path

import numpy as np

from penumbra.data.volume import Volume, as_labels, in_ras, refuse_size
from penumbra.errors import DataError

SUFFIXES = (".mha", ".mhd")
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MAX_HEADER = 65536


def read(path: Path, *, label: bool = False) -> Volume:
    """One 3-D volume in RAS+ (MetaImage itself stores LPS).

    Raises:
        DataError: damaged, of a kind that is not read, or holding less than its header claims.
    """
    try:
        array, affine = _parse(path)
    except (OSError, KeyError, ValueError, IndexError, zlib.error) as error:
        raise DataError(
            f"{path}: not a readable MetaImage ({type(error).__name__}: {error}); convert to NIfTI"
        ) from error
    array = as_labels(array, path) if label else array.astype(np.float32)
    return in_ras(array, affine, path)


def _parse(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with path.open("rb") as file:
        fields = {}
        while "ElementDataFile" not in fields:
            line = file.readline(_MAX_HEADER).decode("ascii")
            if file.tell() > _MAX_HEADER or "=" not in line:
                raise ValueError("no ElementDataFile in the header")
            key, _, value = line.partition("=")
            fields[key.strip()] = value.strip()
        shape = tuple(int(n) for n in fields["DimSize"].split())
        refuse_size(shape, path)
        if len(shape) != 3:
            raise ValueError(f"{len(shape)} axes where 3 are expected")
        if fields.get("ElementNumberOfChannels", "1") != "1":
            raise ValueError("voxels hold several numbers where one is expected")
        if _stated(fields, "BinaryData", default="True").lower() != "true":
            raise ValueError("voxels are written as text where bytes are expected")
        big = _stated(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB", default="False")
        order = ">" if big.lower() == "true" else "<"
        dtype = np.dtype(order + _TYPES[fields["ElementType"]])
        size = int(np.prod(shape)) * dtype.itemsize
        payload = _payload(path, fields, file.read(), size)
    if len(payload) < size:
        raise ValueError(f"holds {len(payload)} bytes where the header claims {size}")
    array = np.frombuffer(payload, dtype, count=int(np.prod(shape))).reshape(shape, order="F")
    return array, _affine(fields)


def _payload(path: Path, fields: dict[str, str], inline: bytes, size: int) -> bytes:
    name, skipped = fields["ElementDataFile"], int(fields.get("HeaderSize", "0"))
    if Path(name).name != name:
        raise ValueError(f"ElementDataFile '{name}' must lie beside the header")
    if name != "LOCAL":
        inline = (path.parent / name).read_bytes()
    elif skipped > 0:  # counted from the file's first byte
        inline = path.read_bytes()
    if fields.get("CompressedData", "False").lower() == "true":
        if skipped:
            raise ValueError("compressed voxels behind another header")
        return zlib.decompressobj().decompress(inline, size)
    return inline[-size:] if skipped < 0 else inline[skipped:]


def _affine(fields: dict[str, str]) -> np.ndarray:
    spacing = _stated(fields, "ElementSpacing", "ElementSize", default="1 1 1")
    matrix = _stated(
        fields, "TransformMatrix", "Rotation", "Orientation", default="1 0 0 0 1 0 0 0 1"
    )
    offset = _stated(fields, "Offset", "Position", "Origin", default="0 0 0")
    affine = np.eye(4)
    affine[:3, :3] = _numbers(matrix).reshape(3, 3).T * _numbers(spacing)
    affine[:3, 3] = _numbers(offset)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _stated(fields: dict[str, str], *names: str, default: str) -> str:
    """What a header says under one of the names that MetaIO takes for the same."""
    return next((fields[name] for name in names if name in fields), default)


def _numbers(text: str) -> np.ndarray:
    return np.array([float(v) for v in text.split()])
