"""The detour around torch's slow single-image 3-D convolution changes no number."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from penumbra.nets.conv3d import Conv3d, use_fast_conv3d


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_values_and_gradients_are_those_of_torch(
    batch: int, stride: int, generator: torch.Generator
) -> None:
    layer = Conv3d(4, 6, 3, stride=stride, padding=1, groups=2)
    x = torch.randn(batch, 4, 5, 4, 3, generator=generator, requires_grad=True)
    plain = functional.conv3d(x, layer.weight, layer.bias, stride=stride, padding=1, groups=2)
    torch.testing.assert_close(layer(x), plain, atol=1e-5, rtol=1e-5)
    probe = torch.randn(plain.shape, generator=generator)
    inputs = [x, layer.weight, layer.bias]
    wanted = torch.autograd.grad((plain * probe).sum(), inputs)
    got = torch.autograd.grad((layer(x) * probe).sum(), inputs)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_only_zero_padded_convolutions_take_it_and_parameters_stay() -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv3d(2, 2, 3, padding_mode="replicate"))
    before = list(net.parameters())
    use_fast_conv3d(net)
    assert [type(m) for m in net] == [Conv3d, nn.Conv3d]
    assert all(a is b for a, b in zip(before, net.parameters(), strict=True))
