"""A study of the main arms, not yet begun."""

from pathlib import Path

import pytest

from penumbra.config import resolve
from penumbra.study.arms import chosen
from penumbra.study.matrix import Study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    arms = tuple(chosen(["main"]))
    return Study(resolve("phantom-mri", size="tiny"), tmp_path, tmp_path / "s", arms, (0.5, 1.0), 2)
