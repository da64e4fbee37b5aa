"""Mean and variance through the decoder in one pass: the cheapest look at the posterior.

Every activation is an independent Gaussian. Weight noise is in truth shared by all voxels, so the
epistemic map keeps its shape but not its scale (measured: ``docs/results/posterior-cost.md``). Use
it to rank voxels, not to size intervals. It stands where a bank of draws stands: its sigma points
are decoded like draws, but a point's voxels belong to no one function, so it has no volumes.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from scipy.linalg import hadamard
from torch import Tensor, nn
from torch.nn import functional

from penumbra.bayes.bank import Bank, Encoded
from penumbra.bayes.gaussian import GaussianLayer
from penumbra.bayes.layer import EncoderDecoder, branches, stochastic_layers
from penumbra.bayes.operation import operation_of
from penumbra.nets.decoder import Level, crop
from penumbra.nets.heads import FindingsHead
from penumbra.types import Output

SLOPE = 0.01
"""Of every leaky rectifier in decoder and heads."""
Pair = tuple[Tensor, Tensor | None]
"""Mean and variance; no variance is none at all."""


class Propagation(Bank):
    """A bank of sigma points in place of draws; refuses all but the Gaussian posterior.

    ``Var(w * x) = (x^2 + v) * sigma^2 + v * mu^2`` per convolution, exact Gaussian moments through
    the rectifier, statistics of mean plus variance in the norm, gates at their mean map. Logits end
    as Gaussians and reach probabilities by sigma points that match mean and covariance.

    Raises:
        ValueError: the network is not variational, has several decoders, or predicts the spread
            of its logits.
    """

    coherent = False

    def __init__(self, network: nn.Module) -> None:
        if len(branches(network)) > 1:
            raise ValueError("a network of several decoders needs draws")
        layers = stochastic_layers(network)
        if not layers or not all(isinstance(layer, GaussianLayer) for layer in layers):
            raise ValueError(
                "variances propagate through Gaussian layers; call bayes.convert first"
            )
        heads = dict(network.get_submodule("heads").named_children())
        voxel_head = heads.get("segmentation")
        if voxel_head is not None and getattr(voxel_head, "spread", None) is not None:
            raise ValueError("a network that predicts the spread of its logits needs draws")
        self.network, self.heads = network, heads
        classes = 1 if voxel_head is None else cast(GaussianLayer, voxel_head.last).weight.shape[0]
        self.table = torch.from_numpy(hadamard(_points(classes))[:classes].copy()).float()

    def __len__(self) -> int:
        return 2 * self.table.shape[1]

    @torch.no_grad()
    def encode(self, image: Float[Tensor, "b c *space"]) -> Encoded:
        """Mean and deviation of all logits; then the gate maps."""
        net = cast(EncoderDecoder, self.network)
        features = net.encode(image)
        gates = list(self.network.get_submodule("gates").children())
        stream: Pair = (features[-1], None)
        pooled: list[Pair] = []
        attention: list[Tensor] = []
        for depth in range(len(features)):
            if depth > 0:
                level = cast(Level, net.decoder.levels[depth - 1])
                stream = _level(level, stream, features[-1 - depth])
            maps = None
            if gates:
                gate = gates[len(features) - 1 - depth]
                maps = gate(stream[0])[:, : cast(int, gate.maps)]
            if "findings" in self.heads:
                pooled.append(_pool(stream, None if maps is None else maps[:, 1:]))
            if maps is not None:
                attention.insert(0, maps)
                stream = _scale(stream, 2 * maps[:, :1])
        return Encoded((*self._voxels(stream), *self._findings(pooled), *attention))

    def decode(self, features: Encoded, t: int) -> Output:
        mean, std, finding_mean, finding_std, *attention = features.features
        sign = 1 - 2 * (t % 2)
        column = sign * self.table[:, t // 2].to(mean.device).view(1, -1, *(1,) * (mean.dim() - 2))
        return Output(
            segmentation=mean + std * column if "segmentation" in self.heads else None,
            findings=finding_mean + sign * finding_std if "findings" in self.heads else None,
            attention=tuple(attention),
        )

    def _voxels(self, stream: Pair) -> tuple[Tensor, Tensor]:
        if "segmentation" not in self.heads:
            return stream[0], stream[0]
        mean, variance = _layer(self.heads["segmentation"].get_submodule("last"), stream)
        assert variance is not None
        return mean, variance.sqrt()

    def _findings(self, pooled: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        if not pooled:
            return torch.zeros(0), torch.zeros(0)
        head = cast(FindingsHead, self.heads["findings"])
        mean = torch.cat([m for m, _ in pooled], -1)
        variance = torch.cat([torch.zeros_like(m) if v is None else v for m, v in pooled], -1)
        standard = (mean - head.pooled_mean) / head.pooled_std, variance / head.pooled_std.square()
        of_all, spread = _layer(head.last, _rectify(_layer(head.neck, standard)))
        assert spread is not None
        return of_all.diagonal(dim1=1, dim2=2), spread.diagonal(dim1=1, dim2=2).sqrt()


def _points(classes: int) -> int:
    return 1 << max(1, (classes - 1).bit_length())


def rectified_moments(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of ``leaky_relu(x, SLOPE)`` for ``x ~ N(mean, variance)``, exactly."""
    std = variance.clamp_min(1e-20).sqrt()
    z = mean / std
    cdf = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    pdf_std = std * torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    # Above zero: E[x; x>0] = m cdf + s pdf, E[x^2; x>0] = (m^2 + v) cdf + m s pdf.
    second = mean.square() + variance
    first_above = mean * cdf + pdf_std
    second_above = second * cdf + mean * pdf_std
    new_mean = SLOPE * mean + (1 - SLOPE) * first_above
    new_second = SLOPE**2 * second + (1 - SLOPE**2) * second_above
    return new_mean, (new_second - new_mean.square()).clamp_min(0)


def _level(level: Level, coarse: Pair, skip: Tensor) -> Pair:
    side_mean, side_variance = _layer(level.skip, (skip, None))
    mean, variance = _layer(level.up, coarse)
    size = side_mean.shape[2:]
    stream = (
        crop(mean, size) + side_mean,
        _sum(None if variance is None else crop(variance, size), side_variance),
    )
    stream = _rectify(_norm(level.norm, stream))
    for block in level.more:
        conv, norm, _ = cast(nn.Sequential, block)
        stream = _rectify(_norm(cast(nn.GroupNorm, norm), _layer(conv, stream)))
    return stream


def _layer(layer: nn.Module, x: Pair) -> Pair:
    if isinstance(layer, GaussianLayer):
        return layer.moments(*x)
    if x[1] is None:
        return layer(x[0]), None
    operation, weight = operation_of(layer), cast(Tensor, layer.weight)
    return layer(x[0]), operation.run(x[1], operation.prepare(weight.square()), None)


def _norm(norm: nn.GroupNorm, x: Pair) -> Pair:
    mean, variance = x
    if variance is None:
        return norm(mean), None
    grouped = mean.unflatten(1, (norm.num_groups, -1)).flatten(2)
    spread = variance.unflatten(1, (norm.num_groups, -1)).flatten(2).mean(-1)
    spread = spread + grouped.var(-1, unbiased=False) + norm.eps
    centre = grouped.mean(-1).repeat_interleave(norm.num_channels // norm.num_groups, 1)
    spread = spread.repeat_interleave(norm.num_channels // norm.num_groups, 1)
    shape = (*centre.shape, *(1,) * (mean.dim() - 2))
    factor = norm.weight * spread.rsqrt()
    shift = norm.bias - centre * factor
    return mean * factor.view(shape) + shift.view(shape), variance * factor.square().view(shape)


def _rectify(x: Pair) -> Pair:
    mean, variance = x
    if variance is None:
        return functional.leaky_relu(mean, SLOPE), None
    return rectified_moments(mean, variance)


def _scale(x: Pair, factor: Tensor) -> Pair:
    return x[0] * factor, None if x[1] is None else x[1] * factor.square()


def _pool(x: Pair, maps: Tensor | None) -> Pair:
    """Mean, and the variance of a mean of fully correlated voxels: the mean deviation squared.

    Weight noise is shared by all voxels; taken as independent it would vanish in a pooled feature.
    """
    flat = x[0].flatten(2)
    weight = flat.new_ones(1, 1, flat.shape[-1]) if maps is None else maps.flatten(2)
    weight = (weight / weight.sum(-1, keepdim=True).clamp_min(1e-20)).expand(len(flat), -1, -1)
    mean = torch.bmm(weight, flat.transpose(1, 2))
    if x[1] is None:
        return mean, None
    return mean, torch.bmm(weight, x[1].flatten(2).sqrt().transpose(1, 2)).square()


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b
