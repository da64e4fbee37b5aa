"""A trained network as ONNX, its posterior noise an input, so that draws can be repeated anywhere.

Inputs: ``image`` [b, c, *patch] in display units and ``noise`` [n], standard normals for every
random weight (zeros: the mean network). Outputs: ``segmentation`` and ``findings`` logits, where
the task has them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from penumbra.bayes.gaussian import GaussianLayer
from penumbra.bayes.layer import Draw, pinned, stochastic_layers
from penumbra.errors import DataError
from penumbra.files import atomic
from penumbra.model import Network
from penumbra.trained import Trained


class Noisy(nn.Module):
    """A network as a function of image and noise."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        layers = stochastic_layers(network)
        other = [type(layer).__name__ for layer in layers if not isinstance(layer, GaussianLayer)]
        if other:
            raise DataError(
                f"only Gaussian posteriors and deterministic networks become ONNX, not {other[0]}; "
                "train with bayes.posterior variational or none"
            )
        self.layers = cast(Sequence[GaussianLayer], layers)

    @property
    def noise_size(self) -> int:
        """Random weights of the network; at least 1, which is ignored when there are none."""
        return max(1, sum(_size(layer) for layer in self.layers))

    def forward(
        self, image: Float[Tensor, "b c *space"], noise: Float[Tensor, " n"]
    ) -> tuple[Tensor, ...]:
        draws, start = [], 0
        for layer in self.layers:
            stop = start + _size(layer)
            draws.append(_drawn(layer, noise[start:stop]))
            start = stop
        with pinned(self.layers, draws):
            output = self.network(image)
        logits = [output.segmentation, output.findings]
        return tuple(part for part in logits if part is not None)


def export(model: Trained, path: Path) -> Path:
    """Write the network for images of its training patch size, and a batch of one.

    Raises:
        DataError: onnx is not installed, or the posterior has no Gaussian form.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise DataError("ONNX export needs pip install 'penumbra-imaging[onnx]'") from None
    module = Noisy(model.network).eval()
    image = torch.zeros(1, len(model.task.channels), *model.config.data.patch)
    noise = torch.zeros(module.noise_size)
    outputs = [name for name in ("segmentation", "findings") if getattr(model.task, _FIELDS[name])]
    program: Any = torch.onnx.export(
        module,
        (image, noise),
        input_names=["image", "noise"],
        output_names=outputs,
        dynamo=True,
        verbose=False,
    )
    with atomic(path) as part:
        program.save(part)
    return path


_FIELDS = {"segmentation": "classes", "findings": "findings"}


def _size(layer: GaussianLayer) -> int:
    return layer.weight.numel() + (0 if layer.bias is None else layer.bias.numel())


def _drawn(layer: GaussianLayer, noise: Float[Tensor, " n"]) -> Draw:
    sigma, bias_sigma = layer.sigma()
    count = layer.weight.numel()
    weight = layer.weight + sigma * noise[:count].view(layer.weight.shape)
    bias = None
    if layer.bias is not None and bias_sigma is not None:
        bias = layer.bias + bias_sigma * noise[count:]
    return layer.operation.prepare(weight), bias
