"""The whole objective on a toy encoder."""

import copy

import pytest
import torch
from torch import Tensor, nn

from penumbra.config import Pretrain
from penumbra.errors import TrainingError
from penumbra.pretrain.objective import SelfSupervised
from penumbra.pretrain.protocol import LEAK_WEIGHT


class ToyEncoder(nn.Module):
    def __init__(self, dim: int = 2, features: int = 16) -> None:
        super().__init__()
        conv = nn.Conv2d if dim == 2 else nn.Conv3d
        self.fine = conv(1, 8, 3, padding=1)
        self.coarse = conv(8, features, 3, stride=2, padding=1)
        self.register_buffer("input_mean", torch.zeros(1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        fine = self.fine(x - self.input_mean).relu()
        return fine, self.coarse(fine).relu()


def build(dim: int = 2, protocols: int = 3, **settings: object) -> SelfSupervised:
    torch.manual_seed(0)
    return SelfSupervised(
        ToyEncoder(dim),
        features=16,
        settings=Pretrain(**settings),
        protocols=protocols,
        dim=dim,
        seed=3,
    )


def batch(
    dim: int = 2, seed: int = 0, size: int = 8
) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(size, 1, *(12,) * dim, generator=generator)
    other = image + 0.05 * torch.randn(image.shape, generator=generator)
    return (image, other), {
        "position": torch.rand(size, dim, generator=generator),
        "protocol": torch.randint(-1, 3, (size,), generator=generator),
        "patient": torch.randint(0, 5, (size,), generator=generator),
    }


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("queue", [0, 20])
@pytest.mark.parametrize("mode", ["predict", "partition", "invariant", "off"])
def test_every_mode_trains_every_weight_that_it_uses(dim: int, queue: int, mode: str) -> None:
    model = build(dim, queue=queue, protocol_mode=mode)
    views, labels = batch(dim)
    parts = model(*views, **labels)
    assert all(value.ndim == 0 for value in parts.values())
    parts["total"].backward()
    model.after_step()
    for name, parameter in model.named_parameters():
        if not name.startswith("key_"):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_positions_with_other_axes_are_refused() -> None:
    (view_a, view_b), labels = batch()
    labels["position"] = torch.rand(8, 3)
    with pytest.raises(ValueError, match=r"positions have 3 axes, but .* dim=2"):
        build()(view_a, view_b, **labels)


def test_each_view_may_have_its_own_position_and_protocol() -> None:
    views, labels = batch()
    model = build(protocol_mode="predict").eval()
    same = model(*views, **labels)
    twice = {k: torch.stack([v, v], 1) for k, v in labels.items() if k != "patient"}
    torch.testing.assert_close(
        model(*views, **twice, patient=labels["patient"]), same, equal_nan=True
    )
    twice["protocol"][:, 1] = -1
    twice["position"][:, 1] = torch.nan
    alone = model(*views, **twice, patient=labels["patient"])
    assert float(alone["protocol"].detach()) != float(same["protocol"].detach())
    assert torch.equal(alone["contrast"], same["contrast"])


def test_own_region_targets_replace_the_position_bins() -> None:
    (view_a, view_b), labels = batch()
    model = SelfSupervised(
        ToyEncoder(), features=16, settings=Pretrain(), protocols=3, dim=2, seed=3, regions=5
    )
    organs = torch.tensor([0, 4, -1, 2, 2, 1, 3, -1])
    hard = model(view_a, view_b, **labels, region=organs)["region"]
    soft = nn.functional.one_hot(organs.clamp_min(0), 5).float()
    soft[organs < 0] = torch.nan
    torch.testing.assert_close(model(view_a, view_b, **labels, region=soft)["region"], hard)


def test_the_total_is_the_weighted_sum_of_its_parts() -> None:
    views, labels = batch()
    parts = build(variance_guard=0.2, region=0.3, protocol=0.4, unlearn=0.7)(*views, **labels)
    expected = parts["contrast"] + 0.2 * parts["guard"] + 0.3 * parts["region"]
    expected = expected + 0.4 * parts["protocol"]
    expected = expected + 0.7 * (parts["protocol_adversary"] + LEAK_WEIGHT * parts["protocol_leak"])
    torch.testing.assert_close(parts["total"], expected)


def test_soft_overlap_is_the_share_of_each_box_in_the_bins() -> None:
    views, labels = batch()
    model = build(regions="overlap").eval()
    centres = torch.stack([labels["position"]] * 2, 1)
    tiny = torch.full_like(centres, 1e-4)
    hard = model(*views, **labels)["region"]
    soft = model(*views, **labels | {"position": centres}, extent=tiny)["region"]
    torch.testing.assert_close(soft, hard, atol=1e-2, rtol=0)
    wide = model(*views, **labels | {"position": centres}, extent=tiny + 0.9)["region"]
    assert abs(float((wide - hard).detach())) > 1e-3


def test_an_encoder_that_is_blind_is_refused_after_a_while() -> None:
    model = build(variance_guard=0.0)
    for parameter in model.encoder.parameters():
        nn.init.zeros_(parameter).requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.raises(TrainingError, match="the representation collapsed"):
        steps(model, optimizer, 0, 101)


def steps(model: SelfSupervised, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        views, labels = batch(seed=step)
        optimizer.zero_grad()
        model(*views, **labels)["total"].backward()
        optimizer.step()
        model.after_step()


@pytest.mark.parametrize("queue", [0, 20])
def test_a_resumed_run_is_the_same_bit_for_bit(queue: int) -> None:
    straight = build(queue=queue)
    optimizer = torch.optim.Adam(straight.parameters(), lr=1e-3)
    steps(straight, optimizer, 0, 4)
    saved, saved_optimizer = copy.deepcopy((straight.state_dict(), optimizer.state_dict()))
    resumed = build(queue=queue)
    other = torch.optim.Adam(resumed.parameters(), lr=1e-3)
    resumed.load_state_dict(saved)
    other.load_state_dict(saved_optimizer)
    steps(straight, optimizer, 4, 8)
    steps(resumed, other, 4, 8)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_heads_come_from_the_seed_and_leave_the_global_state_alone() -> None:
    encoder = ToyEncoder()
    settings = Pretrain()
    before = torch.random.get_rng_state()
    first, second = (
        SelfSupervised(encoder, features=16, settings=settings, protocols=3, dim=2, seed=s)
        for s in (5, 5)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_momentum_copy_follows_and_the_queue_fills() -> None:
    model = build(queue=20, momentum=0.9)
    key = model.key_encoder.fine.weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    steps(model, optimizer, 0, 1)
    expected = 0.9 * key + 0.1 * model.encoder.fine.weight
    torch.testing.assert_close(model.key_encoder.fine.weight, expected)
    assert int(model.queue.stored) == 16
    steps(model, optimizer, 1, 3)
    assert len(model.queue.contents()[0]) == 20


def test_slices_that_no_loss_tells_apart_may_lie_together() -> None:
    model = build(negatives="patient_aware")
    views, labels = batch()
    one = torch.zeros_like(labels["patient"])
    for patient, apart in ((one, 1), (torch.arange(8), 7), (-torch.ones_like(one), 7)):
        where = {"patient": patient, "position": torch.full_like(labels["position"], 0.5)}
        model(*views, **labels | where)
        assert model._alive is not None
        assert model._alive[1] == apart
