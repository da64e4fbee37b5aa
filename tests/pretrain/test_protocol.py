"""Four modes of the protocol task: labels masked, gradients reversed, halves kept apart."""

import pytest
import torch
from torch import Tensor, nn

from penumbra.config import Pretrain
from penumbra.pretrain.heads import accuracy, masked_cross_entropy
from penumbra.pretrain.objective import SelfSupervised
from penumbra.pretrain.probe import linear_probe
from penumbra.pretrain.protocol import (
    ProtocolTask,
    linear_leak,
    reversal_ramp,
    reverse_gradient,
)


def test_a_reversed_gradient_is_minus_the_gradient() -> None:
    x = torch.ones(3, requires_grad=True)
    (reverse_gradient(x, 0.5) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-0.5, -1.0, -1.5]


def test_the_reversal_grows_from_nothing_to_one() -> None:
    assert reversal_ramp(0.0) == 0
    assert reversal_ramp(0.2) < reversal_ramp(0.5) < reversal_ramp(1.0) < 1
    assert reversal_ramp(1.0) == pytest.approx(1, abs=1e-3)


def test_unknown_protocols_take_no_part(generator: torch.Generator) -> None:
    logits = torch.randn(4, 3, generator=generator, requires_grad=True)
    labels = torch.tensor([2, -1, 0, -1])
    loss = masked_cross_entropy(logits, labels)
    loss.backward()
    expected = nn.functional.cross_entropy(logits[[0, 2]], labels[[0, 2]])
    torch.testing.assert_close(loss, expected)
    assert logits.grad is not None
    assert not logits.grad[[1, 3]].any()
    assert float(accuracy(torch.eye(4), torch.tensor([0, -1, 3, -1]))) == 0.5


def test_no_known_protocol_costs_nothing() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.full((4,), -1))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()
    assert accuracy(logits, torch.full((4,), -1)).isnan()


def test_a_label_beyond_the_head_is_refused() -> None:
    with pytest.raises(ValueError, match="label 3 but only 3 classes"):
        masked_cross_entropy(torch.zeros(1, 3), torch.tensor([3]))


@pytest.mark.parametrize(
    ("mode", "parts"),
    [
        ("predict", {"protocol", "protocol_accuracy"}),
        ("invariant", {"protocol_adversary", "adversary_accuracy", "protocol_leak"}),
        (
            "partition",
            {
                "protocol",
                "protocol_accuracy",
                "protocol_adversary",
                "adversary_accuracy",
                "protocol_leak",
            },
        ),
        ("off", set()),
    ],
)
def test_each_mode_reports_its_own_parts(
    mode: str, parts: set[str], generator: torch.Generator
) -> None:
    task = ProtocolTask(8, 3, mode=mode, generator=generator)
    pooled = torch.randn(4, 8, generator=generator)
    assert set(task(pooled, torch.tensor([0, 1, 2, -1]), reversal=1.0)) == parts


def test_a_single_protocol_switches_the_task_off(generator: torch.Generator) -> None:
    task = ProtocolTask(8, 1, mode="partition", generator=generator)
    assert task.mode == "off"
    assert task.anatomy(torch.ones(2, 8)).shape == (2, 8)


def test_prediction_never_reaches_the_half_that_contrast_uses(generator: torch.Generator) -> None:
    task = ProtocolTask(8, 3, mode="partition", generator=generator)
    pooled = torch.randn(6, 8, generator=generator, requires_grad=True)
    task(pooled, torch.tensor([0, 1, 2, 0, 1, 2]), reversal=1.0)["protocol"].backward()
    assert pooled.grad is not None
    assert not pooled.grad[:, :4].any()
    assert pooled.grad[:, 4:].any()


def test_the_linear_leak_is_the_explained_share_of_a_ridge_regression(
    generator: torch.Generator,
) -> None:
    protocol = torch.tensor([0, 1] * 20 + [-1] * 5)
    told = protocol[:, None].float() + 0.01 * torch.randn(45, 1, generator=generator)
    noise = torch.randn(45, 1, generator=generator)
    assert float(linear_leak(told, protocol, ridge=1e-6)) == pytest.approx(1, abs=1e-2)
    assert float(linear_leak(noise, protocol)) < 0.2
    x, y = noise[:40, 0], protocol[:40].float()
    correlation = torch.corrcoef(torch.stack([x, y]))[0, 1]
    exact = float(linear_leak(noise, protocol, ridge=1e-9))
    assert exact == pytest.approx(float(correlation**2), rel=1e-3)
    same_means = torch.tensor([[-1.0], [-1], [1], [1]])
    assert float(linear_leak(same_means, torch.tensor([0, 1, 0, 1]))) == 0


def test_without_two_known_protocols_nothing_leaks() -> None:
    x = torch.ones(3, 2, requires_grad=True)
    leak = linear_leak(x, torch.tensor([-1, 1, -1]))
    leak.backward()
    assert float(leak.detach()) == 0
    assert float(linear_leak(x.detach(), torch.ones(3, dtype=torch.int64))) == 0


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.layers(x),)


def scans(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Stripes of an orientation and width of their own, darker and smoother by protocol 1."""
    protocol = torch.randint(0, 2, (n,), generator=generator)
    angle, rate = 3.14 * torch.rand(n, generator=generator), 1 + torch.rand(n, generator=generator)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    wave = angle.cos()[:, None, None] * x + angle.sin()[:, None, None] * y
    image = (0.5 + 0.4 * torch.sin(rate[:, None, None] * wave)) * (1 - 0.4 * protocol)[
        :, None, None
    ]
    views = [image + 0.03 * torch.randn(image.shape, generator=generator) for _ in range(2)]
    return views[0][:, None], views[1][:, None], protocol


def test_partition_keeps_the_protocol_out_of_the_contrasted_half() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    steps = 150
    model = SelfSupervised(
        Small(),
        features=32,
        settings=Pretrain(steps=steps, region=0.0),
        protocols=2,
        dim=2,
        seed=0,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        view_a, view_b, protocol = scans(32, generator)
        parts = model(
            view_a,
            view_b,
            position=torch.full((32, 2), torch.nan),
            protocol=protocol,
            patient=torch.full((32,), -1),
        )
        optimizer.zero_grad()
        parts["total"].backward()
        optimizer.step()
        model.after_step()
    (train, _, known), (test, _, truth) = scans(200, generator), scans(200, generator)
    with torch.no_grad():
        a, b = model.represent(train), model.represent(test)
    task = model.protocol
    contrasted = linear_probe(task.anatomy(a), known, task.anatomy(b), truth).accuracy
    predicting = linear_probe(task.acquisition(a), known, task.acquisition(b), truth).accuracy
    assert predicting > 0.95
    assert contrasted < predicting - 0.2
