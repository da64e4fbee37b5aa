"""One vector per scan: what the encoder says of it on average, for judging how strange it is."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.config import Config
from penumbra.data.preprocess import Prepared
from penumbra.evaluate.arrays import evenly
from penumbra.inference.windows import windows
from penumbra.model import Network

MOST_WINDOWS = 8
"""Of those that show the body, evenly spread: a mean needs no more, and a sweep costs more."""


@torch.inference_mode()
def scan_features(network: Network, prepared: Prepared, config: Config) -> Float[Tensor, " d"]:
    """Mean over space and windows of the encoder's features, every level side by side."""
    body = np.asarray(prepared.body)
    seen = [w for w in windows(prepared, config) if body[w.place].any()]
    device = next(network.parameters()).device
    rows = [
        torch.cat([f.flatten(2).mean(-1) for f in network.encode(seen[k].image.to(device))], 1)
        for k in evenly(len(seen), MOST_WINDOWS)
    ]
    return torch.cat(rows).mean(0).cpu()
