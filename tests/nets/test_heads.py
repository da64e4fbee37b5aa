"""Image-level findings are read from standardised features."""

import pytest
import torch

from penumbra.model import Network
from penumbra.nets.heads import FindingsHead
from penumbra.training.start import standardize_findings


def test_what_all_images_share_does_not_reach_the_neck(generator: torch.Generator) -> None:
    head = FindingsHead(6, 2, neck=4)
    pooled = 5 + 0.1 * torch.randn(50, 2, 6, generator=generator)
    head.standardize(pooled)
    seen: list[torch.Tensor] = []
    head.neck.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head(pooled)
    assert float(seen[0].mean()) == pytest.approx(0, abs=0.01)
    assert float(seen[0].std()) == pytest.approx(1, abs=0.05)


def test_a_feature_that_never_changes_is_not_blown_up() -> None:
    head = FindingsHead(3, 1, neck=2)
    head.standardize(torch.ones(8, 1, 3))
    assert bool(head(torch.ones(8, 1, 3)).isfinite().all())


def test_a_network_is_standardised_by_its_training_images(generator: torch.Generator) -> None:
    net = Network(channels=1, classes=0, findings=2, dim=2, widths=(8, 16), neck=4)
    images = torch.rand(2, 5, 1, 16, 16, generator=generator)
    standardize_findings(net, images)
    head = net.heads["findings"]
    assert not head.pooled_mean.equal(torch.zeros(24))
    again = Network(channels=1, classes=0, findings=2, dim=2, widths=(8, 16), neck=4, seed=1)
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(images[0]).findings, net(images[0]).findings)


def test_a_network_without_findings_is_left_alone() -> None:
    standardize_findings(Network(channels=1, classes=2, findings=0, dim=2, widths=(8, 16)), [])
