"""The page of views: every family is there, nothing leaves the display range."""

from pathlib import Path

import numpy as np
import pytest

from penumbra.augment import families
from penumbra.errors import DataError
from penumbra.report.gallery import gallery, strips
from penumbra.types import Modality

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def disc(n: int) -> np.ndarray:
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    return (np.hypot(y, x) < 0.4 * n) * np.float32(0.8)


@pytest.mark.parametrize("modality", ["mri", "ct", "xray"])
def test_the_page_shows_every_family(modality: Modality, tmp_path: Path) -> None:
    image = disc(40) * 1200 - 1000 if modality == "ct" else disc(40)
    page = gallery(image, modality, tmp_path / "deep" / "views.html", spacing_mm=(4.0, 4.0))
    text = page.read_text()
    for family in families(modality):
        assert f"<h2>{family.replace('_', ' ').capitalize()}</h2>" in text
    assert "http" not in text.replace("http-equiv", ""), "the page stands alone"


def test_pictures_stay_in_the_display_range() -> None:
    for row in strips(disc(32), "mri", (4.0, 4.0)):
        for picture in row.pictures:
            assert 0 <= picture.min() <= picture.max() <= 1


def test_a_volume_is_shown_by_its_fullest_slice(tmp_path: Path) -> None:
    volume = np.zeros((24, 20, 3), dtype=np.float32)
    volume[6:18, 5:15, 1] = 1.0
    page = gallery(volume, "mri", tmp_path / "views.html")
    assert "20 by 24 voxels" in page.read_text()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.nii\.gz"):
        gallery(tmp_path / "nowhere.nii.gz", "mri", tmp_path / "views.html")


def test_a_line_of_numbers_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 or 3 dimensions, not shape \(5,\)"):
        gallery(np.zeros(5, dtype=np.float32), "mri", tmp_path / "views.html")


@pytest.mark.real
def test_a_real_radiograph_has_a_page(tmp_path: Path) -> None:
    files = sorted((DATA / "nih_cxr14_64px").rglob("*.png"))
    if not files:
        pytest.skip("the small real data sets are not here")
    assert gallery(files[0], "xray", tmp_path / "views.html").stat().st_size > 10_000
