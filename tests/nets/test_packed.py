"""Kernels in oneDNN's layout: the same sums."""

import pytest
import torch
from torch import Tensor, nn

from penumbra.bayes.operation import operation_of
from penumbra.nets import packed
from penumbra.nets.upconv import UpConv

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN here"
)

LAYERS = {
    "2-D": (nn.Conv2d(6, 8, 3, padding=1), (7, 5)),
    "stride, groups": (nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2), (7, 5)),
    "dilation, no bias": (nn.Conv2d(6, 8, 3, padding=2, dilation=2, bias=False), (9, 8)),
    "3-D": (nn.Conv3d(6, 8, 3, padding=1), (7, 5, 4)),
    "up 2-D": (UpConv(6, 8, dim=2), (5, 3)),
    "up 3-D": (UpConv(6, 8, dim=3), (5, 3, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_packed_kernel_gives_the_same_sums(name: str, batch: int) -> None:
    layer, size = LAYERS[name]
    operation = operation_of(layer)
    x = torch.randn(batch, 6, *size, generator=torch.Generator().manual_seed(0))
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    with torch.inference_mode():
        kernel = operation.prepare(weight)
        stored = operation.store(kernel)
        assert stored.is_mkldnn
        torch.testing.assert_close(operation.run(x, stored, bias), operation.run(x, kernel, bias))
        torch.testing.assert_close(operation.run(x, stored, bias), layer(x))


def test_what_gains_nothing_stays_as_it_is() -> None:
    one = operation_of(nn.Conv2d(4, 4, 1))
    with torch.inference_mode():
        assert not one.store(torch.ones(4, 4, 1, 1)).is_mkldnn
        assert not packed.can_pack(torch.ones(4, 4, 3, 3, dtype=torch.float64))
    same = operation_of(nn.Conv2d(4, 4, 3, padding="same"))
    with torch.inference_mode():
        assert not same.store(torch.ones(4, 4, 3, 3)).is_mkldnn
    kernel = torch.ones(4, 4, 3, 3, requires_grad=True)
    assert not operation_of(nn.Conv2d(4, 4, 3)).store(kernel).is_mkldnn  # a gradient may be asked
