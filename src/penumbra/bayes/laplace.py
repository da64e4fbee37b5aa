"""Last-layer Laplace: a Gaussian around the trained last layers (Daxberger et al. 2021).

The covariance is the inverse of the generalised Gauss-Newton matrix plus the prior's precision,
in full: over all weights of the voxel head, and per finding for the findings head.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from penumbra.bayes.layer import Draw, StochasticLayer, branches, stochastic_layers
from penumbra.nets.hooks import hooked


class LaplaceLayer(StochasticLayer):
    """A last layer with a full Gaussian over each block of its weights and biases.

    ``factor`` [blocks, p, p] is the lower Cholesky factor of the covariance; zero until fitted.
    A voxel head is one block (softmax couples its classes), a findings head one block per finding.
    """

    factor: Tensor

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        out, features = self.weight.shape[:2]
        blocks, size = (out, features + 1) if self.is_findings else (1, out * (features + 1))
        self.register_buffer("factor", torch.zeros(blocks, size, size))

    @property
    def is_findings(self) -> bool:
        """A Linear reads one pooled vector per finding; a convolution reads voxels."""
        return self.operation.kind == "linear"

    def draw(self, generator: torch.Generator) -> Draw:
        assert self.bias is not None
        blocks, size = self.factor.shape[:2]
        noise = torch.randn(blocks, size, 1, generator=generator, device=generator.device)
        delta = (self.factor @ noise.to(self.factor)).view(self.weight.shape[0], -1)
        weight = self.weight + delta[:, :-1].reshape(self.weight.shape)
        return weight, self.bias + delta[:, -1]

    def noisy(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.operation.run(x, *self.draw(generator))

    @torch.no_grad()
    def widen(self, factor: float) -> None:
        self.factor.mul_(factor)

    def curvature(self, x: Tensor) -> Float[Tensor, "blocks p p"]:
        """Gauss-Newton matrix of the negative log-likelihood, summed over this input."""
        logits = self.operation.run(x, *self.mean())
        if self.is_findings:
            p = logits.diagonal(dim1=1, dim2=2).sigmoid()
            inputs = _with_one(x).transpose(0, 1)
            return torch.einsum("fbi,bf,fbj->fij", inputs, p * (1 - p), inputs)
        inputs = _with_one(x.movedim(1, -1).flatten(0, -2))
        p = logits.softmax(1).movedim(1, -1).flatten(0, -2)
        classes, width = p.shape[1], inputs.shape[1]
        total = x.new_zeros(classes, width, classes, width)
        for c in range(classes):
            for d in range(c, classes):
                weight = p[:, c] * (float(c == d) - p[:, d])
                block = (inputs * weight[:, None]).T @ inputs
                total[c, :, d], total[d, :, c] = block, block
        return total.reshape(1, classes * width, classes * width)


def convert(network: nn.Module) -> None:
    """Put a Laplace layer in place of every head's last layer; ``fit`` gives it a spread.

    Converting a fresh network and loading a state dict restores a fitted posterior.

    Raises:
        ValueError: the network is stochastic already.
    """
    if stochastic_layers(network):
        raise ValueError("the network is stochastic already; convert a deterministic one")
    for branch in branches(network):
        for head in branch.get_submodule("heads").children():
            head.register_module("last", LaplaceLayer(head.get_submodule("last")))


@torch.no_grad()
def fit(
    network: nn.Module,
    images: Iterable[Float[Tensor, "_ c *_"]],
    *,
    prior_precision: float = 1.0,
    voxel_weight: float = 1.0,
) -> None:
    """Fit the spread of a converted network's last layers on training images.

    ``Sigma = (prior_precision I + sum_n J_n' H_n J_n)^-1``. Voxels are correlated, so an image
    holds fewer observations than voxels: ``voxel_weight`` below 1 counts them as fewer (the same
    knob as the KL temperature of the variational posterior). Findings are counted fully.

    Raises:
        ValueError: ``prior_precision`` is not positive, the network was not converted, or there
            are no images.
    """
    if prior_precision <= 0:
        raise ValueError(f"prior_precision={prior_precision}: must be positive")
    layers = [layer for layer in stochastic_layers(network) if isinstance(layer, LaplaceLayer)]
    if not layers:
        raise ValueError("no Laplace layer; call laplace.convert first")
    curvature = [torch.zeros_like(layer.factor, dtype=torch.float64) for layer in layers]
    read: dict[nn.Module, Tensor] = {}
    count = 0
    for batch in images:
        with hooked(layers, lambda layer, inputs, output: read.update({layer: inputs[0]})):
            network(batch)
        for k, layer in enumerate(layers):
            weight = 1.0 if layer.is_findings else voxel_weight
            curvature[k] += weight * layer.curvature(read[layer]).double()
        count += len(batch)
    if count == 0:
        raise ValueError("no images to fit the Laplace approximation on")
    for layer, matrix in zip(layers, curvature, strict=True):
        eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        precision = torch.linalg.cholesky(matrix + prior_precision * eye)
        layer.factor.copy_(torch.linalg.cholesky(torch.cholesky_inverse(precision)))


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1)
