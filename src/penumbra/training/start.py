"""What a network must know of its training images before the first step."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from penumbra.model import Network
from penumbra.nets.heads import FindingsHead


@torch.no_grad()
def standardize_findings(network: Network, images: Iterable[Tensor]) -> None:
    """Let the findings head standardise its pooled features by those of some training images.

    A network without findings is left as it is.
    """
    if not network.findings:
        return
    head, pooled = cast(FindingsHead, network.heads["findings"]), list[Tensor]()
    hook = head.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    try:
        for image in images:
            network(image)
    finally:
        hook.remove()
    head.standardize(torch.cat(pooled))
