"""Protocols that files tell by themselves."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from penumbra.data.acquisition import protocol_of
from penumbra.data.cohort import read_cohort


@pytest.fixture
def series(tmp_path: Path, write_ct: Callable[..., Path]) -> Path:
    return write_ct(tmp_path / "series", np.zeros((8, 8, 2), np.int16), thickness=5.0)


def tagged(folder: Path, **tags: object) -> Path:
    for file in folder.iterdir():
        dataset = dcmread(file)
        for name, value in tags.items():
            setattr(dataset, name, value)
        dataset.save_as(file)
    return folder


def test_a_ct_series_tells_its_kernel_and_thickness(series: Path) -> None:
    assert protocol_of(series, "ct") == "slices from 4 mm"
    assert protocol_of(tagged(series, ConvolutionKernel="B30f"), "ct") == "B30f, slices from 4 mm"


def test_an_mr_series_tells_field_and_sequence_and_a_film_its_view(series: Path) -> None:
    assert protocol_of(series, "mri") is None
    tagged(series, MagneticFieldStrength="1.5", SequenceName="tse2d", ViewPosition="PA")
    assert protocol_of(series, "mri") == "1.5 T, tse2d"
    assert protocol_of(series / "001.dcm", "xray") == "PA"


@pytest.mark.filterwarnings("ignore:End of file reached:UserWarning")  # pydicom's own
def test_what_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.dcm").write_bytes(bytes(128) + b"DICM")
    assert protocol_of(tmp_path / "broken.dcm", "ct") is None
    assert protocol_of(tmp_path / "absent.png", "xray") is None


def test_a_table_without_a_protocol_column_takes_the_tags(series: Path) -> None:
    table = series.parent / "cases.csv"
    table.write_text("case,image,protocol\na,series,\nb,series,thin\n")
    protocols = [case.protocol for case in read_cohort(series.parent, modality="ct").cases]
    assert protocols == ["slices from 4 mm", "thin"]


def test_a_brats_subject_tells_its_sequences(brats: Path) -> None:
    sequences = {case.protocol for case in read_cohort(brats, modality="mri").cases}
    assert all(set(s.split("+")) <= {"t1", "t1ce", "t2", "flair"} for s in sequences if s)
    assert None not in sequences


def test_an_archive_tells_what_its_folder_tells(series: Path) -> None:
    zipped = Path(shutil.make_archive(str(series.parent / "zipped"), "zip", series))
    assert protocol_of(zipped, "ct") == protocol_of(series, "ct") == "slices from 4 mm"
