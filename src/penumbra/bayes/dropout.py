"""MC dropout as a posterior over weights (Gal & Ghahramani 2016).

Dropping input channel i with probability p and scaling the rest by 1/(1-p) multiplies the weight's
input slice i by 0 or 1/(1-p): a draw is a masked weight, and everything that holds for weight
draws (one per volume, shared by all windows) holds for masks.
"""

import torch
from torch import Tensor, nn

from penumbra.bayes.layer import Draw, Scope, StochasticLayer, replace_layers


class DropoutLayer(StochasticLayer):
    """A layer that drops whole input channels; the mean weight is the weight itself."""

    def __init__(self, layer: nn.Module, *, rate: float) -> None:
        super().__init__(layer)
        self.rate = rate

    def draw(self, generator: torch.Generator) -> Draw:
        weight = self.weight
        # Transposed kernels hold input channels first, all others second.
        if self.operation.kind == "transposed":
            mask = self._mask((weight.shape[0],), weight, generator)
            mask = mask.view(-1, *(1,) * (weight.dim() - 1))
        else:
            in_channels = weight.shape[1] * self.operation.groups
            mask = self._mask((int(in_channels),), weight, generator)
            mask = mask.view(self.operation.groups, 1, weight.shape[1])
            mask = mask.expand(-1, weight.shape[0] // self.operation.groups, -1)
            mask = mask.reshape(*weight.shape[:2], *(1,) * (weight.dim() - 2))
        return self.operation.prepare(weight * mask), self.bias

    def noisy(self, x: Tensor, generator: torch.Generator) -> Tensor:
        shape = [1] * x.dim()
        axis = self.operation.channel_axis()
        shape[0], shape[axis] = x.shape[0], x.shape[axis]
        return self.operation.run(x * self._mask(tuple(shape), x, generator), *self.mean())

    def _mask(self, shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(shape, generator=generator, device=generator.device)
        keep = (uniform >= self.rate).to(device=like.device, dtype=like.dtype)
        return keep / (1 - self.rate)


def convert(network: nn.Module, rate: float, *, scope: Scope = "decoder") -> None:
    """Put channel dropout before every layer of decoder and heads, in place.

    Parameters keep their names: a deterministic state dict loads before or after.

    Raises:
        ValueError: ``rate`` is outside (0, 1), or the network is stochastic already.
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate={rate}: a dropout rate lies between 0 and 1")
    replace_layers(network, lambda layer: DropoutLayer(layer, rate=rate), scope=scope)
