"""NT-Xent: by hand, by property, against the plain form."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from penumbra.pretrain import blocked
from penumbra.pretrain.contrastive import contrast, image_ids, nt_xent


def plain(z_a: Tensor, z_b: Tensor, temperature: float, patient: Tensor | None = None) -> Tensor:
    """The definition, one value per anchor, with the whole matrix in float64."""
    z = functional.normalize(torch.cat([z_a, z_b]).double(), dim=1)
    logits = z @ z.T / temperature
    count = len(z_a)
    partner = torch.arange(2 * count).roll(count)
    excluded = torch.eye(2 * count, dtype=torch.bool)
    if patient is not None:
        ids = patient.repeat(2)
        excluded |= (ids[:, None] == ids[None]) & (ids >= 0)[:, None]
        excluded[torch.arange(2 * count), partner] = False
    return functional.cross_entropy(
        logits.masked_fill(excluded, -torch.inf), partner, reduction="none"
    )


@pytest.fixture
def pair(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    z = torch.randn(7, 6, generator=generator)
    return z, z + 0.5 * torch.randn(z.shape, generator=generator)


@pytest.fixture(params=[3, 512])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several ragged tiles, or a single one; with tiles kept for the backward pass and without."""
    monkeypatch.setattr(blocked, "_CPU_TILE", request.param)
    monkeypatch.setattr(blocked, "_KEPT", 20)


@pytest.mark.parametrize("tau", [0.1, 0.01])
def test_equal_embeddings_cost_the_log_of_all_others(tau: float) -> None:
    z = torch.ones(5, 4)
    assert float(nt_xent(z, z, temperature=tau)) == pytest.approx(math.log(9), rel=1e-5)


def test_perfect_positives_among_orthogonal_negatives() -> None:
    z, tau = torch.eye(4), 0.2
    expected = -1 / tau + math.log(math.exp(1 / tau) + 6)
    assert float(nt_xent(z, z, temperature=tau)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tau", [0.1, 0.01])
def test_order_of_views_and_scale_change_nothing(pair: tuple[Tensor, Tensor], tau: float) -> None:
    a, b = pair
    loss = nt_xent(a, b, temperature=tau)
    torch.testing.assert_close(nt_xent(b, a, temperature=tau), loss)
    torch.testing.assert_close(nt_xent(7 * a, 0.01 * b, temperature=tau), loss)


def test_order_of_images_changes_nothing(pair: tuple[Tensor, Tensor]) -> None:
    a, b = pair
    order = torch.tensor([3, 1, 0, 6, 5, 2, 4])
    torch.testing.assert_close(
        nt_xent(a[order], b[order], temperature=0.2), nt_xent(a, b, temperature=0.2)
    )


def test_the_one_sided_sum_of_the_proposal_is_a_special_case(pair: tuple[Tensor, Tensor]) -> None:
    a, b = pair
    z = functional.normalize(torch.cat([a, b]), dim=1)
    by_hand = 0.0
    for i in range(7):
        others = [float(z[i] @ z[j]) / 0.2 for j in range(14) if j != i]
        by_hand -= float(z[i] @ z[i + 7]) / 0.2 - math.log(sum(math.exp(s) for s in others))
    literal = nt_xent(a, b, temperature=0.2, symmetric=False, reduction="sum")
    assert float(literal) == pytest.approx(by_hand, rel=1e-5)
    both = literal + nt_xent(b, a, temperature=0.2, symmetric=False, reduction="sum")
    torch.testing.assert_close(both / 14, nt_xent(a, b, temperature=0.2))


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("tau", [0.5, 0.1, 0.015, 0.01])
@pytest.mark.parametrize("known", ["none", "some", "all"])
def test_values_and_gradients_equal_the_plain_form(
    pair: tuple[Tensor, Tensor], tau: float, known: str
) -> None:
    patients = {
        "none": None,
        "some": torch.tensor([-1, 4, 4, -1, 9, 4, -1]),
        "all": torch.zeros(7, dtype=torch.int64),
    }
    patient = patients[known]
    a, b = (z.clone().requires_grad_() for z in pair)
    c, d = (z.double().requires_grad_() for z in pair)
    weight = torch.linspace(0.5, 2, 14)  # an uneven upstream gradient
    ours = nt_xent(a, b, temperature=tau, patient=patient, reduction="none")
    exact = plain(c, d, tau, patient)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)
    (ours * weight).sum().backward()
    (exact * weight).sum().backward()
    for got, expected in ((a.grad, c.grad), (b.grad, d.grad)):
        assert got is not None
        assert expected is not None
        assert float((got - expected).abs().max()) <= 2e-6 * (1 / tau + float(expected.abs().max()))


@pytest.mark.usefixtures("tile")
def test_a_second_backward_pass_gives_the_same_gradient(pair: tuple[Tensor, Tensor]) -> None:
    a = pair[0].clone().requires_grad_()
    loss = nt_xent(a, pair[1], temperature=0.1)
    (first,) = torch.autograd.grad(loss, a, retain_graph=True)
    (second,) = torch.autograd.grad(loss, a)
    torch.testing.assert_close(first, second)


def test_a_sharp_temperature_does_not_overflow_in_half_precision(
    pair: tuple[Tensor, Tensor],
) -> None:
    a, b = (z.bfloat16().requires_grad_() for z in pair)
    loss = nt_xent(a, b, temperature=0.01)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    opposite = nt_xent(a.detach(), -a.detach(), temperature=0.001)  # positives at -1000
    assert opposite.isfinite()


def test_autocast_does_not_lower_the_precision(pair: tuple[Tensor, Tensor]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nt_xent(*pair, temperature=0.1)
    assert torch.equal(inside, nt_xent(*pair, temperature=0.1))


def test_one_patient_alone_has_no_negatives_and_no_loss(pair: tuple[Tensor, Tensor]) -> None:
    a, b = (z.clone().requires_grad_() for z in pair)
    loss = nt_xent(a, b, temperature=0.1, patient=torch.zeros(7, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert a.grad is not None
    assert float(a.grad.abs().max()) == pytest.approx(0, abs=1e-6)


def test_past_keys_make_the_denominator_larger(
    pair: tuple[Tensor, Tensor], generator: torch.Generator
) -> None:
    a, b = pair
    z, ids = torch.cat([a, b]), image_ids(7).repeat(2)
    alone = contrast(z, z.roll(7, 0), z, anchor_ids=ids, candidate_ids=ids, temperature=0.2)
    torch.testing.assert_close(alone.mean(), nt_xent(a, b, temperature=0.2))
    past = torch.randn(20, 6, generator=generator)
    more = contrast(
        z,
        z.roll(7, 0),
        torch.cat([z, past]),
        anchor_ids=ids,
        candidate_ids=torch.cat([ids, torch.arange(20)]),
        temperature=0.2,
    )
    assert (more > alone).all()


def test_a_wrong_temperature_or_an_empty_batch_is_refused() -> None:
    z = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"temperature must be positive, got 0\.0"):
        nt_xent(z, z, temperature=0.0)
    with pytest.raises(ValueError, match="empty batch"):
        nt_xent(z[:0], z[:0], temperature=0.1)
