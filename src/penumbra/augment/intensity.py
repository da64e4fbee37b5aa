"""Grey values inside clinical ranges: gamma, gain, bias field, HU window, exposure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.augment.elastic import spline
from penumbra.augment.profile import Profile, random_sign


def per_image(values: Tensor, image: Tensor) -> Tensor:
    """One value per image, shaped and typed to broadcast over it."""
    return values.to(image).view(-1, *(1,) * (image.ndim - 1))


def along_axis(
    image: Float[Tensor, "b c *space"], matrix: Float[Tensor, "b n n"], axis: int
) -> Float[Tensor, "b c *space"]:
    """One matrix per image, applied along one spatial axis."""
    b, n = image.shape[0], image.shape[2 + axis]
    before, after = image.shape[1 : 2 + axis], image.shape[3 + axis :]
    if not after:
        return (image.reshape(b, -1, n) @ matrix.mT).reshape(image.shape)
    flat = image.reshape(b, math.prod(before), n, math.prod(after))
    return (matrix[:, None] @ flat).reshape(image.shape)


@dataclass(frozen=True)
class Gamma:
    """Contrast curve x**gamma on display fractions; 0 and 1 stay where they are."""

    log_gamma: Float[Tensor, " b"]

    @classmethod
    def sample(cls, generator: torch.Generator, shape: Sequence[int], profile: Profile) -> "Gamma":
        amount = profile.draw("gamma", generator, shape[0])
        return cls(amount * random_sign(generator, shape[0]))

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        gamma = per_image(self.log_gamma.exp(), image)
        logarithm = image.clamp(min=0).log_()  # twice as fast as a power; log 0 gives 0
        return logarithm.mul_(gamma).exp_()


@dataclass(frozen=True)
class Gain:
    """Receiver gain: one factor per image."""

    factor: Float[Tensor, " b"]

    @classmethod
    def sample(cls, generator: torch.Generator, shape: Sequence[int], profile: Profile) -> "Gain":
        amount = profile.draw("gain", generator, shape[0])
        return cls(1 + amount * random_sign(generator, shape[0]))

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return image * per_image(self.factor, image)


@dataclass(frozen=True)
class BiasField:
    """Coil sensitivity: a smooth multiplicative field, shared by the channels of one scan.

    The logarithm of the field is a cubic B-spline with one cell per axis, so it varies only over
    the whole field of view, as inhomogeneity does (Sled et al. 1998); it spans +-amount.
    """

    log_field: Float[Tensor, "b 1 *control"]

    @classmethod
    def sample(
        cls, generator: torch.Generator, shape: Sequence[int], profile: Profile
    ) -> "BiasField":
        count, dim = shape[0], len(shape) - 2
        peak = profile.draw("bias_field", generator, count).view(-1, 1, *(1,) * dim)
        control = torch.rand(
            count, 1, *(4,) * dim, generator=generator, device=generator.device
        )  # one cell: four cubic B-splines
        seen = spline(control, (9,) * dim, (1 / 8,) * dim).flatten(1)
        middle, top = (seen.amax(1) + seen.amin(1)) / 2, (seen.amax(1) - seen.amin(1)) / 2
        centred = control - middle.view_as(peak)
        return cls(centred / top.view_as(peak).clamp(min=1e-6) * peak)

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        space = image.shape[2:]
        field = spline(self.log_field.to(image), space, [1 / n for n in space])
        return image * field.exp()


@dataclass(frozen=True)
class Window:
    """Window jitter in HU: the level moves by an offset and the width by a few per cent."""

    offset_hu: Float[Tensor, " b"]
    width: Float[Tensor, " b"]

    CENTRE_HU = 40.0

    @classmethod
    def sample(cls, generator: torch.Generator, shape: Sequence[int], profile: Profile) -> "Window":
        amount = profile.draw("window", generator, shape[0])
        stretch = amount / 300 * random_sign(generator, shape[0])  # 15 HU goes with 5 %
        return cls(amount * random_sign(generator, shape[0]), 1 + stretch)

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        centred = (image - self.CENTRE_HU) * per_image(self.width, image)
        return centred + self.CENTRE_HU + per_image(self.offset_hu, image)


@dataclass(frozen=True)
class Exposure:
    """Tube output: behind a logarithmic detector, a shift of the grey scale.

    A picture is a fraction of the detector's logarithmic range (white = dense), so a change of
    dose by a factor moves every pixel by the same amount.
    """

    shift: Float[Tensor, " b"]

    @classmethod
    def sample(
        cls, generator: torch.Generator, shape: Sequence[int], profile: Profile
    ) -> "Exposure":
        amount = profile.draw("exposure", generator, shape[0])
        return cls(amount * random_sign(generator, shape[0]))

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return image + per_image(self.shift, image)
