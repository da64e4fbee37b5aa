import contextlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from penumbra.data.geometry import load_volume
from penumbra.errors import DataError

SHAPE = (6, 5, 4)  # columns, rows, slices


def tilt(degrees: float) -> list[float]:
    turn = np.deg2rad(degrees)
    return [np.cos(turn), np.sin(turn), 0.0, 0.0, 0.0, -1.0]


def dataset(uid: str, pixels: np.ndarray, modality: str = "CT") -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    radiograph = modality == "DX"
    sop = DigitalXRayImageStorageForPresentation if radiograph else CTImageStorage
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.SeriesInstanceUID, ds.Modality = uid, modality
    ds.FrameOfReferenceUID = uid
    ds.SeriesDescription = f"series of {modality}"
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = pixels.astype("<u2").tobytes()
    return ds


@pytest.fixture
def write_series(tmp_path: Path) -> Callable[..., tuple[Path, np.ndarray, np.ndarray]]:
    """Write slices in shuffled order; give folder, HU volume [column, row, slice], RAS affine."""

    def write(
        folder: str = "series",
        *,
        orientation: list[float] | None = None,
        step: tuple[float, float, float] | None = None,
        keep: tuple[int, ...] = (0, 1, 2, 3),
        stated: float | None = None,
    ) -> tuple[Path, np.ndarray, np.ndarray]:
        axes = np.array(orientation or [1, 0, 0, 0, 1, 0], dtype=float)
        normal = np.cross(axes[:3], axes[3:])
        offset = np.array(step) if step is not None else 2.5 * normal
        volume = np.arange(np.prod(SHAPE)).reshape(SHAPE) * 7
        uid = generate_uid()
        out = tmp_path / folder
        out.mkdir(exist_ok=True)
        for place, k in enumerate(np.random.default_rng(0).permutation(keep)):
            ds = dataset(uid, volume[:, :, k].T)
            ds.ImageOrientationPatient = [float(f"{v:.8f}") for v in axes]
            ds.ImagePositionPatient = [float(f"{v:.6f}") for v in (10, -20, 30) + k * offset]
            ds.PixelSpacing = [0.8, 0.6]
            ds.SliceThickness = 1
            ds.RescaleSlope, ds.RescaleIntercept = 2, -1000
            if stated is not None:
                ds.SpacingBetweenSlices = stated
            ds.save_as(out / f"IM{place:03d}.dcm", enforce_file_format=True)
        lps = np.eye(4)
        lps[:3, 0], lps[:3, 1], lps[:3, 2] = axes[:3] * 0.6, axes[3:] * 0.8, offset
        lps[:3, 3] = (10, -20, 30)
        return out, volume * 2.0 - 1000, np.diag([-1, -1, 1, 1]) @ lps

    return write


@pytest.mark.parametrize(
    "orientation",
    [
        [1, 0, 0, 0, 1, 0],  # axial
        [0, 1, 0, 0, 0, -1],  # sagittal
        [1, 0, 0, 0, 0, -1],  # coronal
        [-1, 0, 0, 0, 1, 0],  # mirrored
        tilt(20),  # oblique
    ],
)
def test_every_voxel_lies_where_dicom_says(write_series, orientation: list[float]) -> None:
    folder, values, affine = write_series(orientation=orientation)
    volume = load_volume(folder)
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    for index in [(0, 0, 0), (5, 4, 3), (1, 3, 2)]:
        mm = affine @ (*index, 1)
        found = np.rint(np.linalg.inv(volume.affine) @ mm)[:3].astype(int)
        assert volume.array[tuple(found)] == values[index]
        np.testing.assert_allclose((volume.affine @ (*found, 1))[:3], mm[:3], atol=1e-3)


def test_the_grid_agrees_with_highdicom(write_series) -> None:
    import highdicom
    from pydicom import dcmread

    folder, _, _ = write_series(orientation=tilt(20))
    reference = highdicom.get_volume_from_series([dcmread(p) for p in sorted(folder.iterdir())])
    volume = load_volume(folder)
    assert sorted(reference.spatial_shape) == sorted(volume.array.shape)
    to_ours = np.linalg.inv(volume.affine) @ np.diag([-1, -1, 1, 1]) @ reference.affine
    for index in np.ndindex(*reference.spatial_shape):
        ours = to_ours @ (*index, 1)
        np.testing.assert_allclose(ours[:3], np.rint(ours[:3]), atol=1e-3)
        assert volume.array[tuple(np.rint(ours[:3]).astype(int))] == reference.array[index]


def test_a_tilted_gantry_gives_a_sheared_grid(write_series) -> None:
    folder, values, affine = write_series(step=(0.0, 0.9, 2.5))
    volume = load_volume(folder)
    np.testing.assert_allclose(
        np.sort(np.abs(volume.file_affine), axis=None), np.sort(np.abs(affine), axis=None)
    )
    assert volume.array.max() == values.max()


def test_positions_win_over_spacing_between_slices(write_series) -> None:
    folder, _, _ = write_series(stated=5.0)
    volume = load_volume(folder)
    assert volume.spacing_mm[2] == pytest.approx(2.5)
    assert dict(volume.tags)["spacing"] == "SpacingBetweenSlices says 5.0 mm, positions 2.500"


def test_a_missing_slice_is_named(write_series) -> None:
    folder, _, _ = write_series(keep=(0, 1, 3))
    with pytest.raises(DataError, match=r"series: slices .* mm between .* slices are missing"):
        load_volume(folder)


def test_two_slices_at_one_place_are_refused(write_series) -> None:
    folder, _, _ = write_series(keep=(0, 1, 2, 2))
    with pytest.raises(DataError, match=r"two slices lie at 35\.00 mm"):
        load_volume(folder)


def test_several_series_are_listed(write_series) -> None:
    folder, _, _ = write_series()
    write_series()
    other, _, _ = write_series("other")
    for number, path in enumerate(sorted(other.iterdir())):
        path.rename(folder / f"other{number}.dcm")
    with pytest.raises(
        DataError, match=r"holds 2 series; .*\n  .*: 4 image\(s\), CT, series of CT"
    ):
        load_volume(folder)


def test_an_archive_is_read_without_unpacking(write_series, tmp_path: Path) -> None:
    folder, _, _ = write_series()
    archive = tmp_path / "series.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("README.txt", "a scan")
        for path in sorted(folder.iterdir()):
            file.write(path, f"../outside/{path.name}")
    np.testing.assert_array_equal(load_volume(archive).array, load_volume(folder).array)
    assert not (tmp_path.parent / "outside").exists()


def test_a_radiograph_is_grey_upright_and_scaled_by_its_detector(tmp_path: Path) -> None:
    grey = np.arange(30).reshape(5, 6) * 100
    ds = dataset(generate_uid(), grey, "DX")
    ds.PhotometricInterpretation, ds.ViewPosition = "MONOCHROME1", "PA"
    ds.ImagerPixelSpacing = [0.2, 0.1]
    ds.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    volume = load_volume(tmp_path / "film.dcm")
    np.testing.assert_array_equal(volume.array, 4095 - grey)
    assert volume.full_scale == 4095
    assert volume.spacing_mm == (0.2, 0.1)
    assert dict(volume.tags)["view"] == "PA"


def test_a_folder_without_images_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(DataError, match="no DICOM images found"):
        load_volume(tmp_path)


@pytest.mark.parametrize("rows", [40000, 60000])
def test_a_header_that_lies_about_its_size_is_refused(write_series, rows: int) -> None:
    from pydicom import dcmread

    folder, _, _ = write_series(keep=(0,))
    path = next(folder.iterdir())
    ds = dcmread(path)
    ds.Rows = ds.Columns = rows
    ds.save_as(path)
    with pytest.raises(DataError, match=r"the header claims"):
        load_volume(folder)


@pytest.mark.parametrize("size", [140, 300, 600, 700])
def test_a_cut_file_is_refused_without_a_traceback(write_series, size: int) -> None:
    folder, _, _ = write_series(keep=(0,))
    path = next(folder.iterdir())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="series"):
        load_volume(folder)


def test_noise_in_the_header_never_escapes_as_another_error(write_series) -> None:
    folder, _, _ = write_series(keep=(0,))
    path = next(folder.iterdir())
    clean = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(clean)
        for place in rng.integers(132, len(content), 6):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        # pydicom warns of values that break the standard; here a warning is an error
        with contextlib.suppress(DataError, Warning):
            load_volume(folder)


def test_a_lone_slice_is_as_thick_as_it_says(tmp_path: Path, write_ct: Callable[..., Path]) -> None:
    volume = load_volume(write_ct(tmp_path / "one", np.zeros((8, 6, 1), np.int16), thickness=5.0))
    assert volume.spacing_mm == pytest.approx((0.6, 0.8, 5.0))
