"""Bad input to ``penumbra run``: one line with file and remedy, exit code 2 for usage, 1 for data.

A folder that the user names wrongly is data (1) when it should be read, usage (2) when it should be
written.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from penumbra import cli

CASE = "BraTS2021_00000"


def broken_shape(root: Path, write: Callable[..., Path]) -> None:
    write(root / CASE / f"{CASE}_seg.nii.gz", np.ones((24, 20, 5), dtype=np.uint8))


def broken_label(root: Path, write: Callable[..., Path]) -> None:
    labels = np.zeros((24, 20, 6), dtype=np.uint8)
    labels[8:12, 8:12] = 9
    write(root / CASE / f"{CASE}_seg.nii.gz", labels)


def broken_nan(root: Path, write: Callable[..., Path]) -> None:
    write(root / CASE / f"{CASE}_t1.nii.gz", np.full((24, 20, 6), np.nan, dtype=np.float32))


def broken_file(root: Path, write: Callable[..., Path]) -> None:
    path = root / CASE / f"{CASE}_t1.nii.gz"
    path.write_bytes(path.read_bytes()[:-900])


def broken_split(root: Path, write: Callable[..., Path]) -> None:
    (root / "participants.csv").write_text(
        f"subject,split,patient\n{CASE},train,Smith\nBraTS2021_00001,test,Smith\n"
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a preset on a folder; the exit code and what was said on stderr."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(data: Path, *, preset: str = "brain-mri", out: Path | None = None) -> tuple[int, str]:
        words = ["run", "--preset", preset, "--size", "tiny", "--data", str(data)]
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "--out", str(out or tmp_path / "run")])
        said = [x for x in capsys.readouterr().err.splitlines() if x.startswith("penumbra: ")]
        assert len(said) == 1
        return int(ended.value.code or 0), said[0]

    return call


@pytest.mark.parametrize(
    ("breaks", "names", "remedy"),
    [
        (broken_shape, f"{CASE}_seg.nii.gz", "resample"),
        (broken_label, f"{CASE}_seg.nii.gz", "the task knows"),
        (broken_nan, f"{CASE}_t1.nii.gz", "export"),
        (broken_file, f"{CASE}_t1.nii.gz", "copy it again"),
        (broken_split, "Smith", "one part"),
    ],
)
def test_a_damaged_cohort_ends_in_one_line(
    breaks: Callable[[Path, Callable[..., Path]], None],
    names: str,
    remedy: str,
    brats: Path,
    write_nifti,
    run,
) -> None:
    breaks(brats, write_nifti)
    code, said = run(brats)
    assert code == 1
    assert names in said
    assert remedy in said


def test_a_missing_and_an_empty_folder_end_in_one_line(tmp_path: Path, run) -> None:
    code, said = run(tmp_path / "nowhere")
    assert (code, "check the path" in said) == (1, True)
    (tmp_path / "empty").mkdir()
    code, said = run(tmp_path / "empty")
    assert (code, "the folder is empty" in said) == (1, True)


def test_a_table_without_path_column_ends_in_one_line(chexpert: Path, run) -> None:
    table = chexpert / "train.csv"
    table.write_text(table.read_text().replace("Path,", "Image,", 1))
    code, said = run(chexpert, preset="chest-xray")
    assert (code, "train.csv: no column 'Path'" in said) == (1, True)


def test_an_unwritable_output_folder_is_usage(brats: Path, tmp_path: Path, run) -> None:
    (tmp_path / "file").touch()
    code, said = run(brats, out=tmp_path / "file" / "run")
    assert (code, "choose another --out" in said) == (2, True)
