"""MetaImage headers as ITK and older programs write them."""

from pathlib import Path

import numpy as np
import pytest

from penumbra.data.geometry import load_volume
from penumbra.errors import DataError

VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def write(path: Path, data: bytes, *, file: str = "LOCAL", **fields: str) -> Path:
    stated = {"NDims": "3", "DimSize": "2 3 4", "ElementType": "MET_SHORT", **fields}
    header = "".join(f"{name} = {value}\n" for name, value in stated.items())
    path.write_bytes(f"{header}ElementDataFile = {file}\n".encode())
    with (path if file == "LOCAL" else path.parent / file).open("ab") as target:
        target.write(data)
    return path


def little() -> bytes:
    return VOXELS.tobytes(order="F")


def voxels(path: Path) -> np.ndarray:
    """As the file stores them: LPS."""
    return load_volume(path).array[::-1, ::-1]


@pytest.mark.parametrize("name", ["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])
def test_bytes_are_read_in_the_order_that_is_stated(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.mha", VOXELS.astype(">i2").tobytes(order="F"), **{name: "True"})
    np.testing.assert_array_equal(voxels(path), VOXELS)


@pytest.mark.parametrize("name", ["Offset", "Position", "Origin"])
def test_the_place_has_three_names(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.mha", little(), ElementSize="2 3 4", **{name: "10 20 30"})
    volume = load_volume(path)
    assert volume.spacing_mm == (2, 3, 4)
    assert volume.file_affine[:3, 3].tolist() == [-10, -20, 30]


@pytest.mark.parametrize("size", ["7", "-1"])
def test_another_header_before_the_voxels_is_skipped(tmp_path: Path, size: str) -> None:
    path = write(tmp_path / "a.mhd", b"another" + little(), file="a.raw", HeaderSize=size)
    np.testing.assert_array_equal(voxels(path), VOXELS)


def test_voxels_as_text_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mha", b"1 2 3 " * 24, BinaryData="False")
    with pytest.raises(DataError, match=r"a\.mha: .*voxels are written as text"):
        load_volume(path)
