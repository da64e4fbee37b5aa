"""A trained network as ONNX, its posterior noise an input, so that draws can be repeated anywhere.

Inputs: ``image`` [b, c, *patch] in display units and ``noise`` [n], standard normals for every
random weight (zeros: the mean network). Outputs: ``segmentation`` and ``findings`` logits, where
the task has them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from penumbra.bayes.gaussian import GaussianLayer
from penumbra.bayes.layer import normal, pinned, stochastic_layers
from penumbra.errors import DataError
from penumbra.files import atomic, write_text
from penumbra.model import Network
from penumbra.trained import Trained


class Noisy(nn.Module):
    """A network as a function of image and noise."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        if len(network.branches) > 1:
            raise DataError(
                "an ensemble of decoders does not become ONNX; train with bayes.decoders 1"
            )
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
        return max(1, sum(layer.size for layer in self.layers))

    def forward(
        self, image: Float[Tensor, "b c *space"], noise: Float[Tensor, " n"]
    ) -> tuple[Tensor, ...]:
        draws, start = [], 0
        for layer in self.layers:
            weight, bias = noise[start : start + layer.size].tensor_split([layer.weight.numel()])
            draws.append(layer.displaced(weight.view(layer.weight.shape), bias))
            start += layer.size
        with pinned(self.layers, draws):
            output = self.network(image)
        logits = [output.segmentation, output.findings]
        return tuple(part for part in logits if part is not None)


def noise_of(network: Network, *, draws: int, generator: torch.Generator) -> Float[Tensor, "t n"]:
    """The noise by which ``Noisy`` repeats the draws of ``bayes.bank`` with the same generator."""
    torch.randint(2**31, (), generator=generator, device=generator.device)  # the bank's own seed
    rows = []
    for _ in range(draws):
        parts = [torch.zeros(0)]
        for layer in stochastic_layers(network):
            parts.append(normal(layer.weight, generator).flatten())
            if layer.bias is not None:
                parts.append(normal(layer.bias, generator).flatten())
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def export(model: Trained, path: Path) -> list[Path]:
    """Write the network for one image of its patch size, and beside it what a user must know.

    ``<name>.json`` holds classes, patch, channels, units, temperature and how the noise is laid
    out: per random layer, in order, the weight in C order, then the bias. ``<name>_noise.npy``
    [t, n] holds the very draws by which ``penumbra predict`` predicts. What is written has repeated
    a draw of torch to ``TOLERANCE`` in onnxruntime, or nothing is kept.

    Raises:
        DataError: onnx is not installed, the posterior has no Gaussian form, or the graph does not
            repeat torch.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise DataError("ONNX export needs pip install 'penumbra-imaging[onnx]'") from None
    module = Noisy(model.network).eval()
    generator = torch.Generator().manual_seed(model.config.seed)
    patch = model.config.data.patch
    image = torch.rand(1, len(model.task.channels), *patch, generator=generator)
    count = model.config.evaluate.fixed_draws if module.layers else 1
    seed = torch.Generator().manual_seed(model.config.seed)
    rows = noise_of(model.network, draws=count, generator=seed)
    noise = rows[0] if module.layers else torch.zeros(module.noise_size)
    program: Any = torch.onnx.export(
        module,
        (image, noise),
        input_names=["image", "noise"],
        output_names=[name for name, field in OUTPUTS.items() if getattr(model.task, field)],
        dynamo=True,
        verbose=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        program.save(part)
        off = difference(part, module, image, noise)
        if not off <= TOLERANCE:
            raise DataError(f"{path}: differs from torch by {off:.2g}; nothing was written")
    described = path.with_suffix(".json")
    write_text(described, json.dumps(_described(model, module, off), indent=1))
    kept = path.with_name(f"{path.stem}_noise.npy")
    if module.layers:
        with atomic(kept) as part, part.open("wb") as file:
            np.save(file, rows.numpy())
    return [path, described, *([kept] if module.layers else [])]


def difference(path: Path, module: Noisy, image: Tensor, noise: Tensor) -> float:
    """The largest difference of any logit between onnxruntime and torch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    # A network without random weights has no use for the noise, and its graph no such input.
    given = {"image": image.numpy(), "noise": noise.numpy()}
    found = session.run(None, {each.name: given[each.name] for each in session.get_inputs()})
    with torch.no_grad():
        expected = module(image, noise)
    pairs = zip(found, expected, strict=True)
    return max(float(np.abs(a - b.numpy()).max()) for a, b in pairs)


def _described(model: Trained, module: Noisy, off: float) -> dict[str, Any]:
    names = [name for name, m in model.network.named_modules() if m in set(module.layers)]
    calibration = model.calibration
    return {
        "image": [1, len(model.task.channels), *model.config.data.patch],
        "channels": list(model.task.channels),
        "units": "display: 0..1 (CT: window_hu to 0..1; MRI, X-ray: fractions of the range)",
        "window_hu": list(model.config.data.window_hu) if model.config.modality == "ct" else None,
        "classes": list(model.task.classes),
        "findings": list(model.task.findings),
        "noise": {name: layer.size for name, layer in zip(names, module.layers, strict=True)},
        "temperature": calibration.temperature,
        "finding_temperature": calibration.finding_temperature,
        "differs_from_torch_by": off,
        "note": "Average probabilities over draws, never logits; then apply the temperature. "
        "Research software, not a medical device.",
    }


OUTPUTS = {"segmentation": "classes", "findings": "findings"}
TOLERANCE = 1e-4
