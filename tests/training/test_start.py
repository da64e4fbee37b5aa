"""What a network learns of its images before the first step."""

import pytest
import torch
from torch import Tensor, nn

from penumbra.model import Network
from penumbra.training.start import standardize_decoder


def seen_by_norms(network: Network, image: Tensor) -> list[Tensor]:
    """What the decoder's norms give, coarsest level first."""
    seen: list[Tensor] = []
    norms = [m for m in network.decoder.modules() if isinstance(m, nn.GroupNorm)]
    hooks = [n.register_forward_hook(lambda _, __, y: seen.append(y.clone())) for n in norms]
    with torch.no_grad():
        network(image)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("dim", [2, 3])
def test_every_channel_of_the_decoder_begins_standardised(
    dim: int, generator: torch.Generator
) -> None:
    network = Network(
        channels=2, classes=2, findings=0, dim=dim, widths=(8, 16, 32), decoder_convs=2, seed=1
    )
    image = torch.rand(4, 2, *(16,) * dim, generator=generator)
    axes = (0, *range(2, 2 + dim))
    assert max(float(y.mean(axes).abs().max()) for y in seen_by_norms(network, image)) > 0.5
    standardize_decoder(network, image)
    begun = seen_by_norms(network, image)
    assert len(begun) == 4
    for y in begun:
        torch.testing.assert_close(y.mean(axes), torch.zeros(y.shape[1]), rtol=0, atol=1e-4)
        torch.testing.assert_close(
            y.std(axes, correction=0), torch.ones(y.shape[1]), atol=1e-3, rtol=0
        )


def test_the_same_images_give_the_same_start(generator: torch.Generator) -> None:
    image = torch.rand(3, 1, 16, 16, generator=generator)
    first, second = (
        Network(channels=1, classes=2, findings=0, dim=2, widths=(8, 16)) for _ in range(2)
    )
    for network in (first, second):
        standardize_decoder(network, image)
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
