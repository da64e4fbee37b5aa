"""Explanation maps of a scan: its own space, both channels, one contract for all methods."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from penumbra.errors import ConfigError
from penumbra.inference.explain import EXPLAINERS, methods_of
from penumbra.inference.explained import explain_scan
from penumbra.inference.overlay import DOUBT, overlay


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).normal(0, 20, (24, 20, 2))
    grid = np.mgrid[-1:1:24j, -1:1:20j, -1:1:2j]
    hu = np.where(np.hypot(grid[0], grid[1]) < 0.8, 40 + noise, -1000).astype(np.int16)
    path = tmp_path_factory.mktemp("scans") / "one.nii.gz"
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([-2.0, -2.0, 5.0, 1.0])), path)
    return path


def test_every_method_writes_maps_in_the_scans_own_space(
    untrained_ct: Path, scan: Path, tmp_path: Path
) -> None:
    methods = [m for m in EXPLAINERS if m != "occlusion"]  # slow, and like the others
    wrote = explain_scan(untrained_ct, scan, tmp_path, methods=methods)
    source = nibabel.load(scan)
    for name in (*methods, "doubt"):
        image = nibabel.load(tmp_path / f"one_{name}.nii.gz")
        assert image.shape[:3] == source.shape, name
        np.testing.assert_array_equal(image.affine, source.affine)
        values = np.asarray(image.dataobj)
        assert 0 <= values.min() <= values.max() <= 1 + 1e-6, name
    page = wrote[-1].read_text()
    assert "cross-hatched" in page
    assert "full color at" in page


def test_doubt_stays_visible_on_full_attention() -> None:
    full = np.ones((10, 10))
    plain = overlay(full, full, np.zeros((10, 10)), scale=(0.0, 1.0))
    unsure = overlay(full, full, full, scale=(0.0, 1.0))
    assert not (plain == DOUBT).all(-1).any()
    assert 0.2 < (unsure == DOUBT).all(-1).mean() < 0.6


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ConfigError, match="lime is no explainer; choose from attention"):
        methods_of("attention,lime")
