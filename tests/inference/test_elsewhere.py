"""Prediction in other processes, as it is typed: one program, its workers and their imports."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from penumbra.inference.scan import predict_scans

SOURCE = Path(__file__).parents[2] / "src"
PREDICT = [sys.executable, "-m", "penumbra", "predict"]
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / "one.nii.gz", tmp_path / "two.nii.gz"]
    for path in paths:
        hu = np.full((24, 24, 4), -1000, dtype=np.int16)
        hu[4:20, 4:20] = rng.normal(40, 20, (16, 16, 4))
        nibabel.save(nibabel.Nifti1Image(hu, np.diag([2.0, 2.0, 5.0, 1.0])), path)
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("on", ["processes", "ray"])
def test_scans_are_predicted_elsewhere_as_here_and_a_bad_one_is_named(
    untrained_ct: Path, scans: list[Path], tmp_path: Path, on: str
) -> None:
    if on == "ray":
        pytest.importorskip("ray")
    predict_scans(untrained_ct, scans, tmp_path / "here", draws=1)
    (tmp_path / "bad.nii.gz").write_bytes(b"no scan")
    names = ["one.nii.gz", "two.nii.gz", "bad.nii.gz"]
    words = [*PREDICT, str(untrained_ct), *names, "--out", "there", "--draws", "1", "--on", on]
    ended = subprocess.run(
        words,
        cwd=tmp_path,  # paths are relative to where the command is typed
        env={**os.environ, **QUIET, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 1, ended.stderr[-2000:]
    assert "bad.nii.gz" in ended.stderr
    wrote = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == wrote
    for name in ("one.json", "two.json", "two_epistemic.nii.gz", "triage.csv"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
