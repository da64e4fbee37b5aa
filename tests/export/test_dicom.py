import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from penumbra.errors import DataError
from penumbra.export.dicom import export_case
from penumbra.export.series import read_series

BTCV = Path(__file__).parents[2] / ".." / "shared" / "data" / "btcv_mini"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
S, C = np.sin(np.deg2rad(20)), np.cos(np.deg2rad(20))

SHAPES = {
    "axial": {},
    "oblique": {"axes": (C, S, 0, -S, C, 0)},
    "coronal": {"axes": (1, 0, 0, 0, 0, -1)},
    "mirrored": {"axes": (-1, 0, 0, 0, 1, 0)},
    "numbered downward": {"down": True},
    "gapped": {"step": 5.0, "thickness": 1.0},
}


@pytest.fixture(params=SHAPES, ids=str)
def exported(request, tmp_path: Path, write_ct, write_prediction) -> tuple[Path, Path]:
    """A prediction's folder and the folder of its DICOM objects."""
    hu = np.random.default_rng(1).integers(-100, 300, (7, 6, 4))
    series = write_ct(tmp_path / "ct", hu, **SHAPES[request.param])
    predicted = write_prediction(tmp_path / "pred", series)
    export_case(predicted, "c1", series, tmp_path / "dicom")
    return predicted, tmp_path / "dicom"


def in_place(predicted: np.ndarray, affine: np.ndarray, volume: hd.Volume) -> np.ndarray:
    """The volume's voxels, looked up at the places in space of the prediction's voxels."""
    index = np.indices(predicted.shape[:3]).reshape(3, -1)
    mm = affine @ np.vstack([index, np.ones(index.shape[1])])
    there = np.linalg.inv(LPS_TO_RAS @ volume.affine) @ mm
    np.testing.assert_allclose(there, np.rint(there), atol=1e-3)
    found = np.rint(there[:3]).astype(int)
    return volume.array[tuple(found)].reshape(*predicted.shape[:3], *volume.array.shape[3:])


@pytest.mark.parametrize("name", ["labelmap", "segmentation"])
def test_every_voxel_of_the_labels_is_where_it_was(exported: tuple[Path, Path], name: str) -> None:
    predicted, out = exported
    image = nibabel.load(predicted / "c1_segmentation.nii.gz")
    volume = hd.seg.segread(out / f"c1_{name}.dcm").get_volume(combine_segments=True)
    labels = np.asarray(image.dataobj)
    np.testing.assert_array_equal(in_place(labels, image.affine, volume), labels)


def test_fractions_are_the_probabilities_to_half_a_step(exported: tuple[Path, Path]) -> None:
    predicted, out = exported
    image = nibabel.load(predicted / "c1_probability.nii.gz")
    volume = hd.seg.segread(out / "c1_probability.dcm").get_volume()
    probability = np.asarray(image.dataobj)
    found = in_place(probability, image.affine, volume)
    assert np.abs(found - probability[..., 1:]).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("name", ["epistemic", "aleatoric", "attention"])
def test_parametric_maps_keep_every_value(exported: tuple[Path, Path], name: str) -> None:
    predicted, out = exported
    image = nibabel.load(predicted / f"c1_{name}.nii.gz")
    values = np.asarray(image.dataobj).reshape(image.shape[:3])
    volume = hd.imread(out / f"c1_{name}.dcm").get_volume()
    np.testing.assert_array_equal(in_place(values, image.affine, volume), values)


@pytest.fixture
def plain(tmp_path: Path, write_ct, write_prediction) -> Path:
    series = write_ct(tmp_path / "ct", np.zeros((7, 6, 4)))
    export_case(write_prediction(tmp_path / "pred", series), "c1", series, tmp_path / "dicom")
    return tmp_path / "dicom"


def test_the_report_states_volumes_intervals_and_the_verdict(plain: Path) -> None:
    content = hd.sr.srread(plain / "c1_report.dcm").content
    groups = content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 3
    for group in groups:
        values = [m.value for m in group.get_measurements()]
        assert values == [12.5, 11.0, 14.25]
        (verdict,) = group.get_qualitative_evaluations()
        assert verdict.value.meaning == "Review by a reader advised"


def test_a_conformal_interval_stands_in_the_report_under_its_own_code(
    tmp_path: Path, write_ct, write_prediction
) -> None:
    series = write_ct(tmp_path / "ct", np.zeros((7, 6, 4)))
    predicted = write_prediction(tmp_path / "pred", series)
    record = json.loads((predicted / "c1.json").read_text())
    for volume in record["volumes_ml"].values():
        volume["conformal"] = {"low": 9.5, "high": 16.0, "level": 0.9}
    (predicted / "c1.json").write_text(json.dumps(record))
    export_case(predicted, "c1", series, tmp_path / "dicom")
    content = hd.sr.srread(tmp_path / "dicom" / "c1_report.dcm").content
    for group in content.get_volumetric_roi_measurement_groups():
        found = {m.derivation.meaning: m.value for m in group.get_measurements()}
        assert found["Lower end of 90 % conformal interval"] == 9.5
        assert found["Upper end of 90 % credible interval"] == 14.25


def test_every_object_belongs_to_the_patient_and_study_of_the_scan(plain: Path) -> None:
    source = dcmread(next(iter((plain.parent / "ct").iterdir())))
    for path in plain.iterdir():
        made = dcmread(path)
        assert made.StudyInstanceUID == source.StudyInstanceUID
        assert (made.PatientID, made.PatientName) == (source.PatientID, source.PatientName)
        assert "Secret" not in path.name


def test_dciodvfy_finds_no_error(plain: Path, need: Callable[[str], str]) -> None:
    validator = need("dciodvfy")
    # Label maps came to the standard in 2024; Debian's validator does not know them.
    for path in sorted(p for p in plain.iterdir() if "labelmap" not in p.name):
        done = subprocess.run([validator, path], capture_output=True, text=True, check=False)
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert not errors, f"{path.name}: {errors}"


def test_a_prediction_of_another_series_is_refused(
    tmp_path: Path, write_ct, write_prediction
) -> None:
    one = write_ct(tmp_path / "one", np.zeros((7, 6, 4)))
    other = write_ct(tmp_path / "other", np.zeros((7, 6, 4)), axes=(C, S, 0, -S, C, 0))
    smaller = write_ct(tmp_path / "smaller", np.zeros((7, 6, 3)))
    predicted = write_prediction(tmp_path / "pred", one)
    with pytest.raises(DataError, match="mm off the series"):
        export_case(predicted, "c1", other, tmp_path / "out")
    with pytest.raises(DataError, match="give the series that was predicted"):
        export_case(predicted, "c1", smaller, tmp_path / "out")


def test_a_series_with_a_missing_slice_is_refused(
    tmp_path: Path, write_ct, write_prediction
) -> None:
    series = write_ct(tmp_path / "ct", np.zeros((7, 6, 5)))
    predicted = write_prediction(tmp_path / "pred", series)
    (series / "003.dcm").unlink()
    with pytest.raises(DataError, match="slices are missing"):
        export_case(predicted, "c1", series, tmp_path / "out")


def test_a_wrong_slice_spacing_in_the_header_does_not_reach_the_objects(
    tmp_path: Path, write_ct, write_prediction
) -> None:
    series = write_ct(tmp_path / "ct", np.zeros((7, 6, 4)))
    for path in series.iterdir():
        dataset = dcmread(path)
        dataset.SpacingBetweenSlices = 9
        dataset.save_as(path)
    predicted = write_prediction(tmp_path / "pred", series)
    export_case(predicted, "c1", series, tmp_path / "out")
    volume = hd.seg.segread(tmp_path / "out" / "c1_labelmap.dcm").get_volume(combine_segments=True)
    assert volume.spacing_between_slices == pytest.approx(3.0)


def test_a_summary_cannot_point_outside_its_folder(
    tmp_path: Path, write_ct, write_prediction
) -> None:
    series = write_ct(tmp_path / "ct", np.zeros((7, 6, 4)))
    predicted = write_prediction(tmp_path / "pred", series)
    text = (predicted / "c1.json").read_text()
    (predicted / "c1.json").write_text(text.replace("c1_epistemic", "../c1_epistemic"))
    with pytest.raises(DataError, match="outside its folder"):
        export_case(predicted, "c1", series, tmp_path / "out")


def test_a_dose_beside_the_slices_is_no_second_series(tmp_path: Path, write_ct) -> None:
    folder = write_ct(tmp_path / "ct", np.zeros((7, 6, 4)))
    dose = dcmread(folder / "001.dcm")
    dose.Modality, dose.SeriesInstanceUID = "RTDOSE", generate_uid()
    dose.save_as(folder / "dose.dcm")
    assert read_series(folder).shape == (7, 6, 4)


def test_without_a_volume_of_its_own_no_segment_is_reported(
    tmp_path: Path, write_ct, write_prediction
) -> None:
    series = write_ct(tmp_path / "ct", np.zeros((7, 6, 4)))
    predicted = write_prediction(tmp_path / "pred", series)
    record = json.loads((predicted / "c1.json").read_text())
    record["task"]["regions"], record["volumes_ml"] = {"both": [1, 2]}, {"both": {}}
    (predicted / "c1.json").write_text(json.dumps(record))
    wrote = {path.name for path in export_case(predicted, "c1", series, tmp_path / "dicom")}
    assert "c1_segmentation.dcm" in wrote
    assert "c1_report.dcm" not in wrote


def test_a_map_that_is_gone_is_named(tmp_path: Path, write_ct, write_prediction) -> None:
    series = write_ct(tmp_path / "ct", np.zeros((7, 6, 4)))
    predicted = write_prediction(tmp_path / "pred", series)
    (predicted / "c1_epistemic.nii.gz").unlink()
    with pytest.raises(DataError, match=r"c1_epistemic\.nii\.gz: cannot be read .*predict again"):
        export_case(predicted, "c1", series, tmp_path / "dicom")
