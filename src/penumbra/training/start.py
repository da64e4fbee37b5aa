"""What a network must know of its training images before the first step."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from penumbra.model import Network
from penumbra.nets.heads import FindingsHead


@torch.no_grad()
def standardize_findings(network: Network, images: Iterable[Tensor]) -> None:
    """Let every findings head standardise its pooled features by those of some training images.

    A network without findings is left as it is.
    """
    if not network.findings:
        return
    heads = [cast(FindingsHead, branch.heads["findings"]) for branch in network.branches]
    pooled: dict[nn.Module, list[Tensor]] = {head: [] for head in heads}
    hooks = [
        head.register_forward_pre_hook(lambda head, inputs: pooled[head].append(inputs[0]))
        for head in heads
    ]
    try:
        for image in images:
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    for head in heads:
        head.standardize(torch.cat(pooled[head]))
