"""The attacker's set: projection, steps and starts."""

import pytest
import torch

from penumbra.robust.ball import (
    Ball,
    Norm,
    ascend,
    ball,
    change_size,
    corner,
    eps_from_hu,
    project,
    radius,
    random_start,
)

SHAPES = [(3, 2, 7, 5), (2, 1, 4, 3, 5)]
NORMS: list[Norm] = ["linf", "l2"]


def around(shape: tuple[int, ...], norm: Norm, eps: float, generator: torch.Generator) -> Ball:
    image = torch.rand(shape, generator=generator)
    valid = torch.rand((shape[0], *shape[2:]), generator=generator) > 0.3
    return ball(image, eps=eps, norm=norm, valid=valid)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", NORMS)
def test_every_move_stays_in_the_ball_the_display_range_and_the_valid_voxels(
    shape: tuple[int, ...], norm: Norm, generator: torch.Generator
) -> None:
    inside = around(shape, norm, 0.1, generator)
    far = inside.image + torch.randn(shape, generator=generator)
    moves = [
        project(far, inside),
        random_start(inside, generator),
        corner(inside, generator),
        ascend(inside.image, torch.randn(shape, generator=generator), 5.0, inside),
    ]
    for moved in moves:
        assert float(change_size(moved, inside).max()) <= 0.1 + 1e-6
        assert float(moved.min()) >= 0.0
        assert float(moved.max()) <= 1.0
        frozen = (inside.mask == 0).expand_as(moved)
        torch.testing.assert_close(moved[frozen], inside.image[frozen], rtol=0, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_a_radius_of_zero_is_the_identity_even_outside_the_display_range(
    norm: Norm, generator: torch.Generator
) -> None:
    image = 3 * torch.randn((2, 1, 6, 6), generator=generator)
    point = ball(image, eps=0.0, norm=norm)
    for moved in (
        random_start(point, generator),
        corner(point, generator),
        ascend(image, torch.randn(image.shape, generator=generator), 0.0, point),
        project(image + 1, point),
    ):
        torch.testing.assert_close(moved, image, rtol=0, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_projecting_twice_is_projecting_once(norm: Norm, generator: torch.Generator) -> None:
    inside = around((2, 1, 6, 6), norm, 0.05, generator)
    once = project(inside.image + torch.randn((2, 1, 6, 6), generator=generator), inside)
    torch.testing.assert_close(project(once, inside), once, rtol=0, atol=1e-6)


def test_an_l2_radius_is_the_root_mean_square_over_valid_voxels() -> None:
    valid = torch.tensor([[True, True, True, False]])
    inside = ball(torch.full((1, 1, 4), 0.5), eps=0.1, norm="l2", valid=valid)
    assert float(radius(inside)) == pytest.approx(0.1 * 3**0.5)
    step = ascend(inside.image, torch.tensor([[[1.0, 0.0, 0.0, 9.0]]]), 0.1, inside)
    assert step[0, 0].tolist() == pytest.approx([0.5 + 0.1 * 3**0.5, 0.5, 0.5, 0.5])


def test_the_same_seed_gives_the_same_start(generator: torch.Generator) -> None:
    inside = around((1, 1, 5, 5), "linf", 0.1, generator)
    one, two = (random_start(inside, torch.Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_hounsfield_units_become_a_share_of_the_window() -> None:
    assert eps_from_hu(8.0, window_hu=(-160.0, 240.0)) == pytest.approx(0.02)


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        ball(torch.zeros(1, 1, 2), eps=-1.0)


def test_an_empty_display_range_is_refused() -> None:
    with pytest.raises(ValueError, match="low < high"):
        ball(torch.zeros(1, 1, 2), eps=0.1, display=(1.0, 0.0))
