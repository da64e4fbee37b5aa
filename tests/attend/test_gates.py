"""The gates of a whole network: used, learned, and in step with the image."""

import pytest
import torch
from torch import Tensor

from penumbra.attend.composite import composite
from penumbra.attend.modulate import modulate
from penumbra.augment import augment
from penumbra.model import Network


def network(seed: int = 0) -> Network:
    net = Network(channels=1, classes=2, findings=1, dim=2, widths=(8, 16), neck=4, seed=seed)
    chance = torch.Generator().manual_seed(seed)
    for gate in net.gates:
        gate.g.weight.data.normal_(generator=chance)
    return net.eval()


def attention(net: Network, image: Tensor) -> Tensor:
    return composite(net(image).attention, net.beta, image.shape[2:]).detach()


def test_the_composite_lies_in_0_to_1_and_its_weights_sum_to_one(
    generator: torch.Generator,
) -> None:
    levels = (torch.ones(1, 2, 9, 7), torch.ones(1, 2, 5, 4))
    beta = torch.randn(2, generator=generator)
    torch.testing.assert_close(composite(levels, beta, (9, 7)), torch.ones(1, 2, 9, 7))
    maps = attention(network(), torch.rand((2, 1, 9, 7), generator=generator))
    assert 0 <= float(maps.min()) <= float(maps.max()) <= 1


@torch.no_grad()
def test_replacing_the_gate_by_its_mean_changes_the_prediction(generator: torch.Generator) -> None:
    net, image = network(), torch.rand((1, 1, 16, 16), generator=generator)
    before = net(image)
    for gate in net.gates:
        gate.register_forward_hook(lambda m, i, out: out.mean((2, 3), keepdim=True).expand_as(out))
    after = net(image)
    assert before.segmentation is not None
    assert after.segmentation is not None
    assert before.findings is not None
    assert after.findings is not None
    assert float((before.segmentation - after.segmentation).abs().max()) > 1e-3
    assert float((before.findings - after.findings).abs().max()) > 1e-5


def test_randomising_the_weights_changes_the_attention(generator: torch.Generator) -> None:
    image = torch.rand((1, 1, 16, 16), generator=generator)
    assert float((attention(network(0), image) - attention(network(1), image)).abs().mean()) > 0.01


@pytest.mark.parametrize("seed", range(5))
def test_pathology_maps_align_with_the_image_after_spatial_transforms(seed: int) -> None:
    image = torch.full((2, 1, 48, 48), 0.1)
    image[:, :, 14:30, 18:36] = 0.9
    lesion = (image > 0.5).float()
    moved, _, masks = augment(
        image,
        None,
        lesion,
        modality="xray",
        generator=torch.Generator().manual_seed(seed),
        probability=1.0,
        spacing_mm=(1.0, 1.0),
    )
    assert masks is not None
    for one, mask in zip(moved[:, 0], masks[:, 0] > 0.5, strict=True):
        assert float(one[mask].mean()) > float(one[~mask].mean()) + 0.2


def test_the_shown_map_is_dimmed_where_the_model_does_not_know() -> None:
    shown = modulate(torch.ones(2), torch.tensor([0.0, 5.0]), kappa=0.25, u_ref=1.0)
    assert shown.tolist() == [1.0, 0.75]
    with pytest.raises(ValueError, match="u_ref must be"):
        modulate(torch.ones(2), torch.ones(2), kappa=0.5, u_ref=0.0)
