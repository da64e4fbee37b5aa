"""Where voxels come from: crop, tilt and a smooth deformation that cannot fold.

Sampling positions are ``x -> A (x + u(x)) + t``: A zooms and rotates, u is a cubic B-spline
displacement (Rueckert et al. 1999). B-splines reproduce affine maps exactly, so everything is put
into one small control grid, and the dense positions are two or three small matrix products.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.augment.profile import Profile, random_sign
from penumbra.augment.resample import resample

CONTROL_SPACING_MM = 32.0
"""Finest control spacing: about the size of a ventricle, a kidney pole or a rib's arch."""

_MAX_STRAIN = 0.9


@dataclass(frozen=True)
class Warp:
    """Drawn parameters; every length in mm about the image's centre.

    Attributes:
        displacement: B-spline control vectors u.
        linear: A.
        shift_mm: t.
        spacing_mm: voxel spacing of the image.
        control_mm: spacing of the control grid.
    """

    displacement: Float[Tensor, "b dim *control"]
    linear: Float[Tensor, "b dim dim"]
    shift_mm: Float[Tensor, "b dim"]
    spacing_mm: tuple[float, ...]
    control_mm: float

    @classmethod
    def sample(cls, generator: torch.Generator, shape: Sequence[int], profile: Profile) -> "Warp":
        """Crop, tilt and deformation for a batch of ``shape`` (b, c, *space)."""
        warp = cls.sample_elastic(generator, shape, profile)
        count, space, spacing = shape[0], shape[2:], warp.spacing_mm
        dim, device = len(space), generator.device
        zoom = 1 / (1 + profile.draw("zoom", generator, count))
        linear = _tilt(generator, profile, count, dim) * zoom[:, None, None]
        half_extent = torch.tensor([(n - 1) * s / 2 for n, s in zip(space, spacing, strict=True)])
        room = (1 - zoom)[:, None] * half_extent.to(device)
        where = torch.rand(count, dim, generator=generator, device=device) * 2 - 1
        return cls(warp.displacement, linear, where * room, spacing, warp.control_mm)

    @classmethod
    def sample_elastic(
        cls, generator: torch.Generator, shape: Sequence[int], profile: Profile
    ) -> "Warp":
        """The deformation alone, with neither crop nor tilt.

        Control vectors are uniform in +-amount per axis. They lie on a grid whose spacing is at
        least ``2 dim amount / 0.9``, which bounds every row sum of |du/dx| by 0.9 and makes the
        Jacobian of x + u(x) diagonally dominant: its determinant is positive by construction.
        """
        count, space = shape[0], shape[2:]
        dim, device = len(space), generator.device
        spacing = profile.spacing(dim)
        amount = profile.draw("elastic", generator, count)
        control_mm = max(CONTROL_SPACING_MM, 2 * dim * float(amount.max()) / _MAX_STRAIN)
        grid = [
            math.floor((n - 1) * s / control_mm) + 4 for n, s in zip(space, spacing, strict=True)
        ]
        unit = torch.rand(count, dim, *grid, generator=generator, device=device) * 2 - 1
        displacement = unit * amount.view(count, *(1,) * (dim + 1))
        linear = torch.eye(dim, device=device).expand(count, dim, dim)
        shift = torch.zeros(count, dim, device=device)
        return cls(displacement, linear, shift, spacing, control_mm)

    def apply(
        self,
        image: Float[Tensor, "b c *space"],
        mode: Literal["bilinear", "nearest"] = "bilinear",
        padding: Literal["border", "zeros"] = "border",
    ) -> Float[Tensor, "b c *space"]:
        """The image seen through the warp; outside is the nearest border voxel, or zero."""
        return resample(image, self.positions(image), mode, padding)

    def box(self, space: Sequence[int]) -> tuple[Float[Tensor, "b dim"], Float[Tensor, " b"]]:
        """The view's centre in the image, 0..1 per axis, and its sides over the image's."""
        whole = [max((n - 1) * s, 1e-6) for n, s in zip(space, self.spacing_mm, strict=True)]
        centre = 0.5 + self.shift_mm / torch.tensor(whole).to(self.shift_mm)
        return centre, torch.linalg.det(self.linear) ** (1 / len(space))

    def positions(self, image: Float[Tensor, "b c *space"]) -> Tensor:
        """Sampling positions [b, *space, dim] as ``grid_sample`` wants them."""
        space, dim = image.shape[2:], image.ndim - 2
        spacing, control = self.spacing_mm, self.displacement.shape[2:]
        knots = torch.meshgrid(
            *[
                (torch.arange(k) - 1) * self.control_mm - (n - 1) * s / 2
                for k, n, s in zip(control, space, spacing, strict=True)
            ],
            indexing="ij",
        )
        moved = torch.stack(knots).to(self.displacement) + self.displacement
        moved = torch.einsum("bij,bj...->bi...", self.linear, moved)
        moved = moved + self.shift_mm.view(*self.shift_mm.shape, *(1,) * dim)
        half = torch.tensor(
            [max((n - 1) * s / 2, 1e-6) for n, s in zip(space, spacing, strict=True)]
        )
        moved = moved / half.to(moved).view(1, dim, *(1,) * dim)
        moved = moved.flip(1).to(image)  # grid_sample counts the last axis first
        steps = [s / self.control_mm for s in spacing]
        return spline(moved, space, steps).movedim(1, -1)


def _tilt(
    generator: torch.Generator, profile: Profile, count: int, dim: int
) -> Float[Tensor, "b dim dim"]:
    """A rotation by the drawn angle in every plane of two axes, one after the other."""
    planes = list(itertools.combinations(range(dim), 2))
    angle = torch.deg2rad(profile.draw("rotation", generator, count * len(planes)))
    angle = (angle * random_sign(generator, count * len(planes))).view(count, -1)
    turns = torch.eye(dim, device=generator.device).repeat(len(planes), count, 1, 1)
    for turn, (i, j), a in zip(turns, planes, angle.T, strict=True):
        turn[:, i, i] = turn[:, j, j] = a.cos()
        turn[:, i, j], turn[:, j, i] = a.sin(), -a.sin()
    return functools.reduce(torch.bmm, turns)


def jacobian(warp: Warp, space: Sequence[int]) -> Float[Tensor, "b *space"]:
    """Determinant of the Jacobian of ``A (x + u(x)) + t`` at every voxel, from the spline itself.

    Above zero everywhere: nothing folds, and orientation is kept. Below one: the tissue around
    that point is seen enlarged.
    """
    dim = len(space)
    steps = [s / warp.control_mm for s in warp.spacing_mm]
    columns = [spline(warp.displacement, space, steps, slope=axis) for axis in range(dim)]
    strain = torch.stack(columns, dim=-1).movedim(1, -2) / warp.control_mm
    affine = torch.linalg.det(warp.linear).view(-1, *(1,) * dim)
    return torch.linalg.det(strain + torch.eye(dim).to(strain)) * affine


def rigid_positions(
    image: Float[Tensor, "b c *space"],
    angle: Float[Tensor, " b"],
    shift_mm: Float[Tensor, "b dim"],
    spacing_mm: tuple[float, ...],
) -> Tensor:
    """Positions after a rotation (radians, in the plane of the first two axes) and a shift."""
    count, dim = len(angle), image.ndim - 2
    linear = torch.eye(dim).repeat(count, 1, 1)
    linear[:, 0, 0] = linear[:, 1, 1] = angle.cos()
    linear[:, 0, 1], linear[:, 1, 0] = -angle.sin(), angle.sin()
    space = image.shape[2:]
    half = torch.tensor(
        [max((n - 1) * s / 2, 1e-6) for n, s in zip(space, spacing_mm, strict=True)]
    )
    turn = (linear * half[None, None, :] / half[None, :, None]).to(image)
    positions = (shift_mm / half).to(image).view(count, *(1,) * dim, dim)
    for axis, n in enumerate(space):
        ends = (-1.0, 1.0) if n > 1 else (0.0, 0.0)
        index = torch.linspace(*ends, n, device=image.device, dtype=image.dtype)
        along = index.view(*(n if a == axis else 1 for a in range(dim)), 1)
        positions = positions + along * turn[:, :, axis].view(count, *(1,) * dim, dim)
    return positions.flip(-1)  # grid_sample counts the last axis first


def spline(
    control: Float[Tensor, "b c *control"],
    space: Sequence[int],
    steps: Sequence[float],
    slope: int | None = None,
) -> Float[Tensor, "b c *space"]:
    """A smooth field from cubic B-spline coefficients, by one small matrix product per axis.

    ``steps`` is the voxel size over the control spacing, per axis; coefficient 0 lies one control
    spacing before the first voxel. With ``slope`` the derivative along that axis comes back, per
    control spacing.
    """
    field = control
    for axis, (n, step) in enumerate(zip(space, steps, strict=True)):
        k = control.shape[2 + axis]
        basis = _basis(n, step, k, slope == axis).to(control)
        before, after = field.shape[: 2 + axis], field.shape[3 + axis :]
        if after:
            field = (basis @ field.reshape(*before, k, -1)).reshape(*before, n, *after)
        else:
            field = field @ basis.mT
    return field


@functools.lru_cache(maxsize=64)
def _basis(n: int, step: float, knots: int, slope: bool) -> Tensor:
    """Cubic B-spline values (or slopes) [n, knots] at 0, step, 2 step ...; knots at -1, 0, 1 ..."""
    t = torch.arange(n, dtype=torch.float64)[:, None] * step
    d = t - (torch.arange(knots, dtype=torch.float64)[None] - 1)
    a = d.abs()
    if slope:
        near, far = (1.5 * a - 2) * a * d.sign(), -0.5 * (2 - a) ** 2 * d.sign()
    else:
        near, far = 2 / 3 - a**2 + a**3 / 2, (2 - a) ** 3 / 6
    return torch.where(a < 1, near, torch.where(a < 2, far, torch.zeros_like(a)))
