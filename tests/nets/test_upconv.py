"""The fused up-convolution against up-sampling and convolving."""

import pytest
import torch
from torch.nn import functional

from penumbra.nets.upconv import UpConv, fold


@pytest.mark.parametrize("size", [(4, 5), (1, 3), (3, 2, 4)])
def test_the_fused_form_equals_upsampling_then_convolving(
    size: tuple[int, ...], generator: torch.Generator
) -> None:
    layer = UpConv(3, 5, dim=len(size))
    x = torch.randn(2, 3, *size, generator=generator, requires_grad=True)
    conv = functional.conv2d if len(size) == 2 else functional.conv3d
    plain = conv(functional.interpolate(x, scale_factor=2.0), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), plain, atol=1e-5, rtol=1e-5)
    probe = torch.randn(plain.shape, generator=generator)
    wanted = torch.autograd.grad((plain * probe).sum(), [x, layer.weight], retain_graph=True)
    got = torch.autograd.grad((layer(x) * probe).sum(), [x, layer.weight])
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_folded_taps_are_those_on_paper() -> None:
    weight = torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 3, 1).expand(1, 1, 3, 3)
    along_rows = fold(weight.contiguous())[0, 0, :, 0]
    assert along_rows.tolist() == [100.0, 110.0, 11.0, 1.0]
