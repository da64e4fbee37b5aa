"""Last-layer Laplace against the exact Hessian of the likelihood."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from penumbra import bayes
from penumbra.bayes import laplace
from penumbra.bayes.laplace import LaplaceLayer
from penumbra.bayes.layer import stochastic_layers
from penumbra.model import Network
from penumbra.nets.heads import FindingsHead, VoxelHead


def network(seed: int = 0) -> Network:
    return Network(channels=1, classes=3, findings=2, dim=2, widths=(8, 8), neck=4, seed=seed)


def hessian(loss, weight: Tensor, bias: Tensor) -> Tensor:
    """Second derivatives in the order (row, features then bias)."""
    flat = torch.cat([weight.flatten(1), bias[:, None]], 1).detach().flatten()

    def of(theta: Tensor) -> Tensor:
        table = theta.view(weight.shape[0], -1)
        return loss(table[:, :-1].reshape(weight.shape), table[:, -1])

    return torch.autograd.functional.hessian(of, flat)


def test_the_voxel_curvature_is_the_hessian(generator: torch.Generator) -> None:
    # For the softmax of a linear map the Gauss-Newton matrix is the Hessian, whatever the labels.
    layer = LaplaceLayer(VoxelHead(4, 3, dim=2).last)
    x = torch.randn(2, 4, 3, 2, generator=generator)
    y = torch.randint(0, 3, (2, 3, 2), generator=generator)
    exact = hessian(
        lambda w, b: functional.cross_entropy(functional.conv2d(x, w, b), y, reduction="sum"),
        layer.weight,
        layer.bias,
    )
    torch.testing.assert_close(layer.curvature(x)[0].detach(), exact, atol=1e-5, rtol=1e-4)


def test_the_curvature_of_findings_is_the_hessian_block_by_block(
    generator: torch.Generator,
) -> None:
    layer = LaplaceLayer(FindingsHead(5, 2, neck=4).last)
    x = torch.randn(6, 2, 4, generator=generator)
    y = torch.randint(0, 2, (6, 2), generator=generator).float()

    def loss(w: Tensor, b: Tensor) -> Tensor:
        logits = functional.linear(x, w, b).diagonal(dim1=1, dim2=2)
        return functional.binary_cross_entropy_with_logits(logits, y, reduction="sum")

    exact = hessian(loss, layer.weight, layer.bias).view(2, 5, 2, 5)
    ours = layer.curvature(x).detach()
    for j in range(2):
        torch.testing.assert_close(ours[j], exact[j, :, j], atol=1e-5, rtol=1e-4)
    assert float(exact[0, :, 1].abs().max()) == 0


def test_draws_have_the_fitted_covariance() -> None:
    net = network()
    laplace.convert(net)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    laplace.fit(net, [x[:2], x[2:]], prior_precision=2.0, voxel_weight=0.1)
    layer = net.heads["findings"].last
    generator = torch.Generator().manual_seed(1)
    deltas = []
    for _ in range(4000):
        w, b = layer.draw(generator)
        deltas.append(torch.cat([w - layer.weight, (b - layer.bias)[:, None]], 1)[0].detach())
    seen = torch.stack(deltas).T.cov()
    wanted = layer.factor[0] @ layer.factor[0].T
    assert float((seen - wanted).abs().max()) < 0.1 * float(wanted.abs().max())


def test_more_data_and_a_stronger_prior_mean_less_spread() -> None:
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def spread(images: list[Tensor], precision: float) -> float:
        net = network()
        laplace.convert(net)
        laplace.fit(net, images, prior_precision=precision)
        return sum(float(layer.factor.square().sum()) for layer in stochastic_layers(net))

    assert spread([x], 1.0) < spread([x[:1]], 1.0)
    assert spread([x], 10.0) < spread([x], 1.0)


def test_a_fitted_posterior_survives_a_state_dict_and_wrong_calls_say_why() -> None:
    net, other = network(), network(seed=5)
    with pytest.raises(ValueError, match=r"laplace\.convert first"):
        laplace.fit(net, [])
    laplace.convert(net)
    with pytest.raises(ValueError, match="no images"):
        laplace.fit(net, [])
    with pytest.raises(ValueError, match="prior_precision=0"):
        laplace.fit(net, [], prior_precision=0.0)
    with pytest.raises(ValueError, match="stochastic already"):
        laplace.convert(net)
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = net(x).segmentation
    laplace.fit(net, [x])
    torch.testing.assert_close(net(x).segmentation, before)  # the mean is untouched
    laplace.convert(other)
    other.load_state_dict(net.state_dict())
    a, b = (
        next(
            iter(
                bayes.bank(n, draws=1, generator=torch.Generator().manual_seed(2)).probabilities(x)
            )
        )
        for n in (net, other)
    )
    assert torch.equal(a.segmentation, b.segmentation)
