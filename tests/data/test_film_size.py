"""Radiographs in picture files: how large is a pixel?"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from penumbra.data.geometry import load_volume


@pytest.mark.parametrize("shape", [(64, 64), (400, 512)])
def test_a_film_without_spacing_shows_a_whole_detector(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "film.png"
    Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(path)
    volume = load_volume(path)
    assert max(n * mm for n, mm in zip(shape, volume.spacing_mm, strict=True)) == 430
