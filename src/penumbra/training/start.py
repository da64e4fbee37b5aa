"""What a network must know of its training images before the first step."""

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from penumbra.model import Network
from penumbra.nets.heads import FindingsHead
from penumbra.nets.hooks import hooked


@torch.no_grad()
def standardize_decoder(network: Network, image: Float[Tensor, "b c *space"]) -> None:
    """Let every channel of the decoders' norms begin with mean 0 and deviation 1 on some images.

    A group norm leaves the channels of a group their own means: with fresh weights more than half
    of the group's deviation, for a level reads activations, which are positive on average. Some
    trainings from such a start marked nothing for hundreds of steps, or to their end; those from
    this one did not (docs/results/label-efficiency.md). Mishkin & Matas 2016 do the like to
    weights. Nothing is drawn.
    """

    def standardize(norm: nn.Module, inputs: Any, seen: Tensor) -> Tensor:
        assert isinstance(norm, nn.GroupNorm)
        axes = (0, *range(2, seen.dim()))
        spread = seen.std(axes, correction=0).clamp(min=0.1)  # 0.3 and more on real scans
        norm.bias.copy_(-seen.mean(axes) / spread)
        norm.weight.copy_(1 / spread)
        return F.group_norm(inputs[0], norm.num_groups, norm.weight, norm.bias, norm.eps)

    decoders = [branch.decoder for branch in network.branches]
    norms = [m for decoder in decoders for m in decoder.modules() if isinstance(m, nn.GroupNorm)]
    if not norms:  # a published architecture
        return
    with hooked(norms, standardize):
        network(image)


@torch.no_grad()
def standardize_findings(network: Network, images: Iterable[Tensor]) -> None:
    """Let every findings head standardise its pooled features by those of some training images.

    A network without findings is left as it is.
    """
    if not network.findings:
        return
    heads = [cast(FindingsHead, branch.heads["findings"]) for branch in network.branches]
    pooled: dict[nn.Module, list[Tensor]] = {head: [] for head in heads}
    with hooked(heads, lambda head, inputs, output: pooled[head].append(inputs[0])):
        for image in images:
            network(image)
    for head in heads:
        head.standardize(torch.cat(pooled[head]))
