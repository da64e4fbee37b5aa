"""Mean-field Gaussian weights ``q(w) = N(mu, softplus(rho)^2)`` (proposal 2.2.1)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from penumbra.bayes.layer import (
    Draw,
    Scope,
    StochasticLayer,
    normal,
    replace_layers,
    signs,
    stochastic_layers,
)

Prior = Literal["warm", "zero", "standard"]
FLOOR = 0.1
"""Smallest initial sigma over ``sigma0`` times the layer's rms: no weight starts frozen."""


class GaussianLayer(StochasticLayer):
    """A layer with independent Gaussian weights, and its own prior.

    ``weight`` and ``bias`` (the means) are the very parameters of the deterministic layer, so an
    optimizer that holds them keeps its state; the prior's mean is a clone and never follows them.
    """

    weight_rho: Tensor
    bias_rho: Tensor | None
    weight_prior_mean: Tensor
    bias_prior_mean: Tensor
    prior_std: Tensor
    sigma_start: Tensor

    def __init__(self, layer: nn.Module, *, sigma0: float, prior: Prior) -> None:
        super().__init__(layer)
        mean = self.weight.detach()
        rms = mean.square().mean().sqrt().clamp_min(1e-6)
        self.weight_rho = nn.Parameter(_initial_rho(mean, rms, sigma0))
        self.register_buffer("weight_prior_mean", _prior_mean(mean, prior))
        self.register_parameter("bias_rho", None)
        if self.bias is not None:
            bias = self.bias.detach()
            self.bias_rho = nn.Parameter(_initial_rho(bias, rms, sigma0))
            self.register_buffer("bias_prior_mean", _prior_mean(bias, prior))
        self.register_buffer("prior_std", torch.ones_like(rms) if prior == "standard" else rms)
        self.register_buffer("sigma_start", functional.softplus(self.weight_rho.detach()).mean())

    def sigma(self) -> Draw:
        """Standard deviations of weight and bias."""
        bias = None if self.bias_rho is None else functional.softplus(self.bias_rho)
        return functional.softplus(self.weight_rho), bias

    @property
    def size(self) -> int:
        """How many random numbers a draw takes: one for each weight and bias."""
        return self.weight.numel() + (0 if self.bias is None else self.bias.numel())

    def draw(self, generator: torch.Generator) -> Draw:
        means = (self.weight,) if self.bias is None else (self.weight, self.bias)
        return self.displaced(*(normal(mean, generator) for mean in means))

    def displaced(self, weight_noise: Tensor, bias_noise: Tensor | None = None) -> Draw:
        """The draw that lies so many standard deviations from the mean, ready to run."""
        weight_sigma, bias_sigma = self.sigma()
        weight, bias = self.weight + weight_sigma * weight_noise, None
        if self.bias is not None and bias_sigma is not None and bias_noise is not None:
            bias = self.bias + bias_sigma * bias_noise
        return self.operation.prepare(weight), bias

    def noisy(self, x: Tensor, generator: torch.Generator) -> Tensor:
        match self.estimator:
            case "weights":
                return self.operation.run(x, *self.draw(generator))
            case "local":
                return self._local(x, generator)
            case "flipout":
                return self._flipout(x, generator)

    @torch.no_grad()
    def widen(self, factor: float) -> None:
        for rho in (self.weight_rho, self.bias_rho):
            if rho is not None:
                rho.copy_(_rho_of(factor * functional.softplus(rho)))

    def moments(self, x: Tensor, x_variance: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance of the output for an input with independent elements.

        ``Var = (x^2 + v) * sigma^2 + v * mu^2 + sigma_bias^2``, ``*`` this layer's operation.
        """
        run, prepare = self.operation.run, self.operation.prepare
        weight_sigma, bias_sigma = self.sigma()
        second = x.square() if x_variance is None else x.square() + x_variance
        bias_variance = None if bias_sigma is None else bias_sigma.square()
        variance = run(second, prepare(weight_sigma.square()), bias_variance)
        if x_variance is not None:
            variance = variance + run(x_variance, prepare(self.weight.square()), None)
        return run(x, *self.mean()), variance

    def _local(self, x: Tensor, generator: torch.Generator) -> Tensor:
        mean, variance = self.moments(x, None)
        # A zero variance (x = 0 and no bias) has an infinite slope under the root.
        return mean + variance.clamp_min(1e-20).sqrt() * normal(mean, generator)

    def _flipout(self, x: Tensor, generator: torch.Generator) -> Tensor:
        weight_sigma, bias_sigma = self.sigma()
        delta = self.operation.prepare(weight_sigma * normal(self.weight, generator))
        axis = self.operation.channel_axis()
        flip_in = signs(_per_image(x, axis, x.shape[axis]), x, generator)
        out = self.operation.out_channels(self.weight)
        flip_out = signs(_per_image(x, axis, out), x, generator)
        noise = flip_out * self.operation.run(x * flip_in, delta, None)
        if self.bias is not None and bias_sigma is not None:
            noise = noise + flip_out * (bias_sigma * normal(self.bias, generator)).view(
                _per_image(x, axis, out, batch=1)
            )
        return self.operation.run(x, *self.mean()) + noise


@dataclass(frozen=True, slots=True)
class LayerDiagnostics:
    """How alive a layer's posterior is.

    ``sigma_ratio``: mean sigma over its initial mean; ``snr``: median ``|mu| / sigma``;
    ``kl_per_weight`` in nats. A ratio near zero with a large SNR is a posterior that has collapsed.
    """

    name: str
    weights: int
    sigma_ratio: float
    snr: float
    kl_per_weight: float


def convert(
    network: nn.Module, *, sigma0: float = 0.3, prior: Prior = "warm", scope: Scope = "decoder"
) -> None:
    """Make decoder and heads variational, in place; call ``rho_parameters`` for the new ones.

    ``sigma`` starts at ``max(sigma0 |w|, FLOOR sigma0 rms)``. Priors: ``warm`` N(trained w, rms^2)
    with the mean cloned, ``zero`` N(0, rms^2), ``standard`` N(0, 1); rms is the layer's own.
    Converting a fresh network and loading a state dict restores a variational model exactly.

    Raises:
        ValueError: ``sigma0`` is not positive, or the network is stochastic already.
    """
    if sigma0 <= 0:
        raise ValueError(f"sigma0={sigma0}: the initial spread must be positive")
    replace_layers(
        network, lambda layer: GaussianLayer(layer, sigma0=sigma0, prior=prior), scope=scope
    )


def kl_gaussian(mean: Tensor, sigma: Tensor, prior_mean: Tensor, prior_std: Tensor) -> Tensor:
    """``sum log(s_p/s) + (s^2 + (mu - m_p)^2) / (2 s_p^2) - 1/2`` in nats (proposal 2.2.1)."""
    ratio = sigma / prior_std
    distance = (mean - prior_mean) / prior_std
    return (0.5 * (ratio.square() + distance.square() - 1) - ratio.log()).sum()


def kl(network: nn.Module) -> Float[Tensor, ""]:
    """``KL(q || p)`` summed over all weights, in nats; 0 for a network without Gaussian layers.

    With a loss that is a mean over images and voxels add ``lambda * kl / (N * V)`` (METHOD: N
    labelled training images, V voxels of an image; ``kl / N`` for findings summed over findings).
    """
    layers = [layer for layer in stochastic_layers(network) if isinstance(layer, GaussianLayer)]
    if not layers:
        return next(network.parameters()).new_zeros(())
    return torch.stack([_layer_kl(layer) for layer in layers]).sum()


def rho_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The spread parameters; they train with a larger learning rate than the means."""
    return [p for name, p in network.named_parameters() if name.endswith("_rho")]


@torch.no_grad()
def diagnostics(network: nn.Module) -> list[LayerDiagnostics]:
    """One row per Gaussian layer; empty for any other network."""
    rows = []
    for name, layer in network.named_modules():
        if isinstance(layer, GaussianLayer):
            sigma, _ = layer.sigma()
            rows.append(
                LayerDiagnostics(
                    name=name,
                    weights=layer.size,
                    sigma_ratio=float(sigma.mean() / layer.sigma_start),
                    snr=float((layer.weight.abs() / sigma).median()),
                    kl_per_weight=float(_layer_kl(layer)) / layer.size,
                )
            )
    return rows


def _layer_kl(layer: GaussianLayer) -> Tensor:
    weight_sigma, bias_sigma = layer.sigma()
    total = kl_gaussian(layer.weight, weight_sigma, layer.weight_prior_mean, layer.prior_std)
    if layer.bias is not None and bias_sigma is not None:
        total = total + kl_gaussian(layer.bias, bias_sigma, layer.bias_prior_mean, layer.prior_std)
    return total


def _initial_rho(mean: Tensor, rms: Tensor, sigma0: float) -> Tensor:
    sigma = torch.maximum(sigma0 * mean.abs(), FLOOR * sigma0 * rms)
    return _rho_of(sigma)


def _rho_of(sigma: Tensor) -> Tensor:
    """The inverse of softplus, without overflow: ``sigma + log(1 - exp(-sigma))``."""
    return sigma + torch.log(-torch.expm1(-sigma))


def _prior_mean(mean: Tensor, prior: Prior) -> Tensor:
    return mean.clone() if prior == "warm" else torch.zeros_like(mean)


def _per_image(x: Tensor, axis: int, channels: int, *, batch: int | None = None) -> list[int]:
    shape = [1] * x.dim()
    shape[0] = x.shape[0] if batch is None else batch
    shape[axis] = channels
    return shape
