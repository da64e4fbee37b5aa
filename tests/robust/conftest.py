"""Tiny predict functions with known behaviour."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

Predict = Callable[[Tensor], Tensor]


@pytest.fixture
def small_network() -> Callable[[int], Predict]:
    """For 2 or 3 dimensions: a fixed random two-layer network, three classes per voxel."""

    def build(dim: int, seed: int = 0) -> Predict:
        generator = torch.Generator().manual_seed(seed)
        first, last = (
            (nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1))
            if dim == 2
            else (nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, 3, 3, padding=1))
        )
        body = nn.Sequential(first, nn.Softplus(), last)
        for p in body.parameters():
            p.data = torch.randn(p.shape, generator=generator) * (0.6 if p.ndim > 1 else 0.1)
        return lambda image: (3 * body(image - 0.5)).softmax(1)

    return build


@pytest.fixture
def findings_network() -> Callable[[], Predict]:
    """A fixed random network with two findings of an 8 x 8 image."""

    def build(seed: int = 0) -> Predict:
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn((64, 16), generator=generator) / 8
        last = torch.randn((16, 2), generator=generator)
        return lambda image: (torch.tanh((image - 0.5).flatten(1) @ hidden) @ last).sigmoid()

    return build
