"""The layers of bayesian-torch and torch-uncertainty in the decoder and heads of our network."""

import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

PRIOR = {
    "prior_mean": 0.0,
    "prior_variance": 1.0,
    "posterior_mu_init": 0.0,
    "posterior_rho_init": -3.0,
}


def find(folder: Path) -> None:
    """Make the peers importable.

    torch-uncertainty's package imports lightning and torchvision at its top; its layers need
    neither, so the package is entered without running that.
    """
    sys.path.append(str(folder))
    package = types.ModuleType("torch_uncertainty")
    package.__path__ = [str(folder / "torch_uncertainty")]
    sys.modules["torch_uncertainty"] = package


class Peer(nn.Module):
    """A peer's layer after up-sampling, its output without its KL."""

    def __init__(self, layer: nn.Module, *, up: bool) -> None:
        super().__init__()
        self.layer, self.up = layer, up

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = functional.interpolate(x, scale_factor=2.0)
        out = self.layer(x)
        return out[0] if isinstance(out, tuple) else out


def _swap(net: nn.Module, plain_up: type[nn.Module], make: Callable[..., nn.Module]) -> None:
    for part in (net.decoder, net.heads):
        for parent in list(part.modules()):
            for key, child in list(parent.named_children()):
                if isinstance(child, (nn.Conv2d, nn.Conv3d)):
                    dim = len(child.kernel_size)
                    shape = (child.in_channels, child.out_channels, child.kernel_size[0])
                    layer = make(dim, shape, child.padding[0], child.bias is not None)
                    setattr(parent, key, Peer(layer, up=False))
                elif isinstance(child, plain_up):
                    out, fan_in = child.weight.shape[:2]
                    layer = make(child.weight.dim() - 2, (fan_in, out, 3), 1, True)
                    setattr(parent, key, Peer(layer, up=True))


def bayesian_torch(net: nn.Module, plain_up: type[nn.Module]) -> None:
    layers = importlib.import_module("bayesian_torch.layers")

    def make(dim: int, shape: tuple[int, int, int], padding: int, bias: bool) -> nn.Module:
        kind = getattr(layers, f"Conv{dim}dReparameterization")
        return kind(*shape, padding=padding, bias=bias, **PRIOR)

    _swap(net, plain_up, make)


def torch_uncertainty(net: nn.Module, plain_up: type[nn.Module]) -> None:
    layers = importlib.import_module("torch_uncertainty.layers.bayesian")

    def make(dim: int, shape: tuple[int, int, int], padding: int, bias: bool) -> nn.Module:
        layer = getattr(layers, f"BayesConv{dim}d")(*shape, padding=padding, bias=bias)
        with torch.no_grad():
            layer.weight_sigma.fill_(-3.0)
        return layer

    _swap(net, plain_up, make)


PEERS = {"bayesian-torch": bayesian_torch, "torch-uncertainty": torch_uncertainty}
