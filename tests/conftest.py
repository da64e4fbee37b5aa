"""Shapes in signatures are checked while testing and free in production."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

install_import_hook("penumbra", "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
