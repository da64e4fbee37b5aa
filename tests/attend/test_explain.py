"""Explainers: one contract for all, and each against an independent implementation."""

from typing import get_args

import pytest
import torch
from monai.visualize import GradCAM, GradCAMpp
from torch import Tensor, nn

from penumbra.attend.explain import Method, centre_prior, explain, organ_prior

METHODS = get_args(Method)


class Finder(nn.Module):
    """Finding 0 counts bright voxels, finding 1 dark ones; smooth, so that gradients exist."""

    def __init__(self, dim: int, *, segment: bool) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dim]
        self.features = nn.Sequential(conv(1, 4, 3, padding=1), nn.Softplus())
        self.head = conv(4, 2, 1)
        self.segment = segment
        with torch.no_grad():
            self.features[0].weight.fill_(0.0)
            centre = (slice(None), 0, *[1] * dim)
            self.features[0].weight[centre] = torch.tensor([6.0, 6.0, -6.0, -6.0])
            self.features[0].bias.copy_(torch.tensor([-3.0, -3.0, 1.0, 1.0]))
            self.head.weight.fill_(0.0)
            self.head.weight[0, :2] = 1.0
            self.head.weight[1, 2:] = 1.0
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        voxels = self.head(self.features(x))
        return voxels if self.segment else voxels.flatten(2).mean(2)


def bright_spot(dim: int) -> Tensor:
    image = torch.full((2, 1, *[16 if dim == 2 else 8] * dim), 0.2)
    image[0, 0][tuple(slice(1, 4) for _ in range(dim))] = 1.0
    image[1, 0][tuple(slice(5, 8) for _ in range(dim))] = 1.0
    return image


@pytest.mark.parametrize("segment", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_every_explainer_finds_the_spot(
    method: Method, dim: int, segment: bool, generator: torch.Generator
) -> None:
    network = Finder(dim, segment=segment).eval()
    image = bright_spot(dim)
    maps = explain(
        network, image, target=0, method=method, layer=network.features, generator=generator
    )
    assert maps.shape == (2, *image.shape[2:])
    assert float(maps.min()) >= 0
    assert maps.flatten(1).amax(1).tolist() == pytest.approx([1.0, 1.0])
    assert not maps.requires_grad
    for one, spot in zip(maps, image[:, 0] > 0.5, strict=True):
        assert float(one[spot].mean()) > 2 * float(one[~spot].mean())


@pytest.mark.parametrize("method", METHODS)
def test_an_image_is_explained_alike_alone_and_in_a_batch(method: Method) -> None:
    network = Finder(2, segment=True).eval()
    image = bright_spot(2)

    def maps(x: Tensor) -> Tensor:
        # the first image of the batch also gets the first noise
        chance = torch.Generator().manual_seed(0)
        return explain(
            network, x, target=0, method=method, layer=network.features, generator=chance
        )

    torch.testing.assert_close(maps(image)[:1], maps(image[:1]))


@pytest.mark.parametrize("method", METHODS)
def test_randomising_the_weights_changes_the_map(
    method: Method, generator: torch.Generator
) -> None:
    image = torch.rand((1, 1, 16, 16), generator=generator)
    maps = []
    for seed in (0, 1):
        chance = torch.Generator().manual_seed(seed)
        network = Finder(2, segment=False).eval()
        for p in network.parameters():
            p.data = torch.randn(p.shape, generator=chance)
        maps.append(
            explain(
                network,
                image,
                target=0,
                method=method,
                layer=network.features,
                generator=torch.Generator().manual_seed(7),
            )
        )
    assert float((maps[0] - maps[1]).abs().mean()) > 0.01


def random_network(seed: int = 0, pooled: int = 3) -> nn.Sequential:
    chance = torch.Generator().manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.AdaptiveAvgPool2d(pooled),
        nn.Flatten(),
        nn.Linear(5 * pooled**2, 3),
    )
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=chance) * 0.3
    return network.eval()


@pytest.mark.parametrize(("method", "peer"), [("grad_cam", GradCAM), ("grad_cam_pp", GradCAMpp)])
def test_class_activation_maps_equal_monais(
    method: Method, peer, generator: torch.Generator
) -> None:
    # Pooled to one cell: MONAI's Grad-CAM++ sums A * g^3 where equation 19 multiplies g^3 by the
    # sum of A, and the two agree where the gradient is constant in space.
    network = random_network(pooled=1 if method == "grad_cam_pp" else 3)
    image = torch.rand((1, 1, 16, 16), generator=generator)
    ours = explain(network, image, target=1, method=method, layer=network[2], generator=generator)
    theirs = peer(nn_module=network, target_layers="2", postprocessing=lambda x: x)(
        x=image, class_idx=1
    )
    theirs = theirs[:, 0] / theirs.max()
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_integrated_gradients_add_up_to_the_change_of_the_score(
    generator: torch.Generator,
) -> None:
    # On a linear model the attribution is weight times input, exactly.
    weight = torch.rand((1, 36), generator=generator)
    image = torch.rand((1, 1, 6, 6), generator=generator)
    maps = explain(
        lambda x: x.flatten(1) @ weight.T,
        image,
        target=0,
        method="integrated_gradients",
        generator=generator,
    )
    expected = weight.reshape(1, 6, 6) * image[:, 0]
    torch.testing.assert_close(maps, expected / expected.max())


def test_smooth_grad_of_a_linear_model_is_its_weight(generator: torch.Generator) -> None:
    weight = torch.rand((1, 36), generator=generator)
    maps = explain(
        lambda x: x.flatten(1) @ weight.T,
        torch.rand((1, 1, 6, 6), generator=generator),
        target=0,
        method="smooth_grad",
        generator=generator,
    )
    torch.testing.assert_close(maps, weight.reshape(1, 6, 6) / weight.max())


def test_explaining_leaves_no_gradient_and_no_hook_behind(generator: torch.Generator) -> None:
    network = random_network()
    image = torch.rand((1, 1, 16, 16), generator=generator)
    for method in METHODS:
        explain(network, image, target=0, method=method, layer=network[2], generator=generator)
    assert all(p.grad is None for p in network.parameters())
    assert not network[2]._forward_hooks
    assert not image.requires_grad


def test_mistakes_are_named(generator: torch.Generator) -> None:
    network = random_network()
    image = torch.rand((1, 1, 16, 16), generator=generator)
    with pytest.raises(ValueError, match="hand over one of the model's modules"):
        explain(network, image, target=0, method="grad_cam", generator=generator)
    stranger = nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match="never ran it"):
        explain(network, image, target=0, method="grad_cam", layer=stranger, generator=generator)
    with pytest.raises(ValueError, match="target 7 does not exist: the model has 3 outputs"):
        explain(network, image, target=7, method="occlusion", generator=generator)


@pytest.mark.parametrize("shape", [(2, 1, 9, 7), (1, 3, 5, 7, 9)])
def test_the_centre_prior_points_at_the_centre(shape: tuple[int, ...]) -> None:
    prior = centre_prior(torch.zeros(shape))
    assert prior.shape == (shape[0], *shape[2:])
    assert float(prior[0][tuple(s // 2 for s in shape[2:])]) == 1.0


def test_the_organ_prior_is_zero_outside_and_empty_without_an_organ() -> None:
    body = torch.zeros((2, 9, 9), dtype=torch.bool)
    body[0, 2:7, 2:7] = True
    prior = organ_prior(body)
    assert float(prior[0, 4, 4]) == 1.0
    assert float(prior[0][~body[0]].max()) == 0.0
    assert float(prior[1].abs().max()) == 0.0


def test_a_body_that_fills_the_frame_is_deepest_in_its_middle() -> None:
    shown = organ_prior(torch.ones(1, 5, 7, dtype=torch.bool))[0]
    assert shown[2, 3] == shown.max() == 1
    torch.testing.assert_close(shown, shown.flip(0, 1))
