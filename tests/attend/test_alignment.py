"""Losses on attention maps."""

import pytest
import torch

from penumbra.attend.alignment import (
    Direction,
    anatomy_loss,
    area_average,
    attention_loss,
    clinical_loss,
)

SHAPES = [(2, 1, 6, 5), (2, 3, 4, 5, 3)]


def body_like(x: torch.Tensor) -> torch.Tensor:
    region = torch.zeros_like(x[:, 0], dtype=torch.bool)
    region[:, 1:4] = True
    return region


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("direction", ["align", "reliable"])
def test_no_gradient_reaches_the_uncertainty(
    shape: tuple[int, ...], direction: Direction, generator: torch.Generator
) -> None:
    a = torch.rand(shape, generator=generator).requires_grad_()
    u = torch.rand(shape, generator=generator).requires_grad_()
    attention_loss(a, u, body_like(a), direction=direction, eta=0.5, u_ref=0.5).backward()
    assert u.grad is None
    assert a.grad is not None
    assert float(a.grad.abs().sum()) > 0
    assert float(a.grad[:, :, 0].abs().max()) == 0.0  # outside the region nothing is asked


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_equal_to_uncertainty_costs_nothing(
    shape: tuple[int, ...], generator: torch.Generator
) -> None:
    u = torch.rand(shape, generator=generator)
    loss = attention_loss(3 * u, u, body_like(u), direction="align", eta=0.0, u_ref=0.1)
    assert float(loss) == pytest.approx(0.0, abs=1e-6)


def test_reliable_is_satisfied_by_attention_where_the_model_is_sure(
    generator: torch.Generator,
) -> None:
    u = torch.rand((1, 1, 8, 8), generator=generator)
    region = torch.ones_like(u[:, 0])
    sure = attention_loss(1 - u, u, region, direction="reliable", eta=0.0, u_ref=1.0)
    unsure = attention_loss(u, u, region, direction="reliable", eta=0.0, u_ref=1.0)
    assert float(sure) == pytest.approx(0.0, abs=1e-5)
    assert float(unsure) > 0.1


def test_the_directions_pull_opposite_ways() -> None:
    u = torch.tensor([[[0.9, 0.1]]])
    region = torch.ones_like(u[:, 0])
    pulls = {}
    for direction in ("align", "reliable"):
        a = torch.full((1, 1, 2), 0.5, requires_grad=True)
        attention_loss(a, u, region, direction=direction, eta=0.0, u_ref=1.0).backward()
        assert a.grad is not None
        pulls[direction] = -a.grad[0, 0]  # the way a descent step moves the map
    assert pulls["align"][0] > 0 > pulls["align"][1]
    assert pulls["reliable"][0] < 0 < pulls["reliable"][1]


@pytest.mark.parametrize("direction", ["align", "reliable", "off"])
def test_zero_uncertainty_is_finite_and_free(direction: Direction) -> None:
    a = torch.rand(1, 1, 5, 5, requires_grad=True)
    zero = torch.zeros(1, 1, 5, 5)
    loss = attention_loss(a, zero, zero[:, 0] + 1, direction=direction, eta=0.0, u_ref=0.1)
    assert float(loss.detach()) == 0.0


def test_an_empty_region_and_an_empty_map_are_finite() -> None:
    a = torch.zeros(1, 1, 4, 4, requires_grad=True)
    u = torch.rand(1, 1, 4, 4)
    for region in (torch.zeros(1, 4, 4), torch.ones(1, 4, 4)):
        loss = attention_loss(a, u, region, direction="align", eta=0.5, u_ref=0.1)
        assert bool(torch.isfinite(loss))
        (gradient,) = torch.autograd.grad(loss, a)
        assert bool(torch.isfinite(gradient).all())


def test_the_loss_does_not_depend_on_the_order_of_voxels(generator: torch.Generator) -> None:
    a, u = (torch.rand((1, 1, 20), generator=generator) for _ in range(2))
    order = torch.randperm(20, generator=generator)
    region = torch.ones_like(a[:, 0])
    one, two = (
        attention_loss(x, y, region, direction="align", eta=0.3, u_ref=0.5)
        for x, y in ((a, u), (a[..., order], u[..., order]))
    )
    torch.testing.assert_close(one, two)


def test_kullback_leibler_by_hand() -> None:
    a, u = torch.tensor([[[0.8, 0.2]]]), torch.tensor([[[0.5, 0.5]]])
    expected = 0.8 * torch.log(torch.tensor(1.6)) + 0.2 * torch.log(torch.tensor(0.4))
    loss = attention_loss(a, u, torch.ones_like(a[:, 0]), direction="align", eta=0.0, u_ref=0.5)
    assert float(loss) == pytest.approx(float(expected), rel=5e-3)  # the floor is 1e-3


@pytest.mark.parametrize(
    ("eta", "u_ref", "message"), [(0.5, 0.0, "u_ref must be"), (1.5, 0.1, "eta is a share")]
)
def test_impossible_settings_are_refused(eta: float, u_ref: float, message: str) -> None:
    x = torch.ones(1, 1, 2)
    with pytest.raises(ValueError, match=message):
        attention_loss(x, x, x[:, 0], direction="align", eta=eta, u_ref=u_ref)


@pytest.mark.parametrize("shape", SHAPES)
def test_unannotated_pairs_have_no_influence(
    shape: tuple[int, ...], generator: torch.Generator
) -> None:
    gate = torch.rand(shape, generator=generator).requires_grad_()
    expert = (torch.rand(shape, generator=generator) > 0.5).float()
    annotated = torch.zeros(shape[:2], dtype=torch.bool)
    annotated[0, 0] = True
    garbage = expert.clone()
    garbage[1] = float("nan")
    loss = clinical_loss(gate, garbage, annotated)
    torch.testing.assert_close(loss, clinical_loss(gate[:1, :1], expert[:1, :1], annotated[:1, :1]))
    loss.backward()
    assert gate.grad is not None
    assert float(gate.grad[1].abs().sum()) == 0.0


def test_an_empty_map_is_not_rewarded_for_a_small_lesion() -> None:
    lesion = torch.zeros(1, 1, 10, 10)
    lesion[0, 0, 4, 4] = 1
    told = torch.tensor([[True]])
    empty = float(clinical_loss(torch.zeros_like(lesion), lesion, told))
    everywhere = float(clinical_loss(torch.ones_like(lesion), lesion, told))
    half = float(clinical_loss(torch.full_like(lesion, 0.5), lesion, told))
    assert empty == pytest.approx(0.5)
    assert everywhere == pytest.approx(0.5)
    assert half == pytest.approx(0.25)
    assert float(clinical_loss(lesion, lesion, told)) == 0.0


def test_no_annotation_at_all_costs_nothing() -> None:
    gate = torch.rand(2, 2, 4, 4, requires_grad=True)
    loss = clinical_loss(gate, torch.zeros(2, 2, 4, 4), torch.zeros(2, 2, dtype=torch.bool))
    assert float(loss.detach()) == 0.0
    loss.backward()


def test_a_coarse_gate_meets_the_area_average_of_the_mask() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, :2, :2] = 1
    mask[0, 0, 2, 2] = 1
    coarse = area_average(mask, (2, 2))
    assert coarse.flatten().tolist() == [1.0, 0.0, 0.0, 0.25]
    assert float(clinical_loss(coarse, mask, torch.tensor([[True]]))) == 0.0


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_inside_the_body_costs_nothing_and_outside_all(shape: tuple[int, ...]) -> None:
    body = torch.zeros((shape[0], *shape[2:]), dtype=torch.bool)
    body[:, :3] = True
    inside = body[:, None].float().expand(shape)
    assert float(anatomy_loss(inside, body)) == 0.0
    assert float(anatomy_loss(1 - inside, body, leak=0.5, width=1)) == pytest.approx(1.5)


def test_the_boundary_term_notices_a_leak_that_the_share_hardly_sees() -> None:
    body = torch.zeros((1, 100), dtype=torch.bool)
    body[:, :90] = True
    tight = body[:, None].float()
    leaking = tight.clone()
    leaking[..., 90:92] = 1.0
    extra = float(anatomy_loss(leaking, body, leak=1.0) - anatomy_loss(leaking, body, leak=0.0))
    assert float(anatomy_loss(leaking, body, leak=0.0)) == pytest.approx(2 / 92)
    assert extra == pytest.approx(0.5)


def test_images_without_a_body_do_not_count() -> None:
    body = torch.zeros((2, 6), dtype=torch.bool)
    body[0, :3] = True
    attention = torch.rand(2, 1, 6)
    torch.testing.assert_close(anatomy_loss(attention, body), anatomy_loss(attention[:1], body[:1]))
    assert float(anatomy_loss(attention[1:], body[1:])) == 0.0
