"""MRI acquisition, exact in k-space: lines left out, moved or modulated, spikes, Rician noise.

Everything that weights whole phase-encoding lines is a circulant matrix along one image axis, so
it is a small matrix product and needs no FFT. A picture is real, hence its k-space is Hermitian;
line weights that are symmetric in +-k keep it real, others make it complex and the magnitude is
shown, as on a scanner.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from penumbra.augment.elastic import rigid_positions
from penumbra.augment.intensity import along_axis, per_image
from penumbra.augment.profile import Profile, draw_seed
from penumbra.augment.resample import resample


def weight_lines(
    image: Float[Tensor, "b c *space"],
    weights: Float[Tensor, "b n"] | Complex[Tensor, "b n"],
    axis: int,
) -> Tensor:
    """The image whose k-space lines along spatial ``axis`` are multiplied by ``weights``.

    Weights are in FFT order (line 0 is the centre). What comes back is real when they are real and
    symmetric in +-k, complex otherwise. Equals ``ifft(weights * fft(image))`` along that axis.

    Raises:
        ValueError: there is not one weight per line.
    """
    n = image.shape[2 + axis]
    if weights.shape[-1] != n:
        raise ValueError(f"{weights.shape[-1]} line weights for an axis of {n} voxels")
    kernel = torch.fft.ifft(weights.to(torch.complex128))
    if not weights.is_complex() and torch.equal(weights, _mirrored(weights)):
        return _circulate(image, kernel.real, axis)
    return torch.complex(_circulate(image, kernel.real, axis), _circulate(image, kernel.imag, axis))


def _mirrored(weights: Tensor) -> Tensor:
    """Weights of -k in the place of those of k."""
    return torch.roll(weights.flip(-1), 1, -1)


def _circulate(image: Tensor, kernel: Tensor, axis: int) -> Tensor:
    n = kernel.shape[-1]
    matrix = kernel.to(image)[:, _differences(n).to(image.device)]
    return along_axis(image, matrix, axis)


@lru_cache(maxsize=32)
def _differences(n: int) -> Tensor:
    """(i - j) mod n: where a circulant matrix reads its kernel."""
    index = torch.arange(n)
    return (index[:, None] - index[None]) % n


def line_order(n: int) -> Tensor:
    """|k| of every line in FFT order: 0, 1, 2 ... 2, 1."""
    return torch.fft.fftfreq(n, 1 / n).abs().round()


@dataclass(frozen=True)
class Undersampling:
    """Cartesian undersampling with a full centre; missing lines are zero.

    Lines come in +-k pairs because the picture is real. ``acquired`` is 1 or 0 per line, in FFT
    order; acquired lines of the result equal those of the image.
    """

    acquired: Float[Tensor, "b n"]
    axis: int

    @classmethod
    def sample(
        cls, generator: torch.Generator, shape: Sequence[int], profile: Profile
    ) -> "Undersampling":
        """Random or equispaced lines (equal chance); the centre holds 0.32/R of all lines.

        0.32/R is fastMRI's rule: 8 % at acceleration 4 and 4 % at 8 (Zbontar et al. 2018).
        """
        device = generator.device
        acceleration = profile.draw("undersampling", generator, shape[0])[:, None]
        axis = _phase_axis(generator, shape)
        n = shape[2 + axis]
        k = line_order(n).to(device)[None]
        centre = (0.32 * n / acceleration).clamp(min=1)
        full = (k < centre / 2) | (acceleration <= 1)
        rest = ((n / acceleration - centre) / (n - centre).clamp(min=1)).clamp(0, 1)
        chance = torch.rand(shape[0], n // 2 + 1, generator=generator, device=device)
        random = chance.gather(1, k.long().expand(shape[0], n)) < rest
        equispaced = torch.remainder(k, 1 / rest.clamp(min=1 / n)) < 1
        equal = torch.rand(shape[0], 1, generator=generator, device=device) < 0.5
        return cls((full | torch.where(equal, equispaced, random)).float(), axis)

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return weight_lines(image, self.acquired, self.axis)


@dataclass(frozen=True)
class Gibbs:
    """Truncation: high phase-encoding lines were not acquired and are filled with zeros."""

    kept: Float[Tensor, "b n"]
    axis: int

    @classmethod
    def sample(cls, generator: torch.Generator, shape: Sequence[int], profile: Profile) -> "Gibbs":
        lost = profile.draw("gibbs", generator, shape[0])[:, None]
        axis = _phase_axis(generator, shape)
        n = shape[2 + axis]
        k = line_order(n).to(generator.device)[None]
        return cls((k <= (1 - lost) * n / 2).float(), axis)

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return weight_lines(image, self.kept, self.axis)


@dataclass(frozen=True)
class Ghosting:
    """Periodic modulation of the lines: shifted copies of the image.

    Weighting line k by ``1 + a cos(2 pi k / period)`` adds a/2 of the image, rolled by
    n/period voxels to both sides. ``replicas`` is the number of images along the axis.
    """

    strength: Float[Tensor, " b"]
    replicas: int
    axis: int

    @classmethod
    def sample(
        cls, generator: torch.Generator, shape: Sequence[int], profile: Profile
    ) -> "Ghosting":
        strength = profile.draw("ghosting", generator, shape[0])
        axis = _phase_axis(generator, shape)
        replicas = torch.randint(2, 5, (1,), generator=generator, device=generator.device)
        return cls(strength, int(replicas), axis)

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        offset = round(image.shape[2 + self.axis] / self.replicas)
        ghosts = image.roll(offset, 2 + self.axis) + image.roll(-offset, 2 + self.axis)
        return image + per_image(self.strength / 2, image) * ghosts


@dataclass(frozen=True)
class Spike:
    """One corrupted k-space point (and its mirror): a plane wave over the whole picture."""

    amplitude: Float[Tensor, " b"]
    cycles: Float[Tensor, "b dim"]
    phase: Float[Tensor, " b"]

    @classmethod
    def sample(cls, generator: torch.Generator, shape: Sequence[int], profile: Profile) -> "Spike":
        count, space = shape[0], shape[2:]
        amplitude = profile.draw("spike", generator, count)
        device = generator.device
        unit = torch.rand(count, len(space), generator=generator, device=device) * 2 - 1
        reach = torch.tensor([n // 3 for n in space], device=device)
        phase = torch.rand(count, generator=generator, device=device) * 2 * math.pi
        return cls(amplitude, (unit * reach).round(), phase)

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """The wave is a sum of two separable ones, added in one product of two thin matrices."""
        b, c, *space = image.shape
        wave = torch.polar(self.amplitude, self.phase).to(image.device)[:, None]
        for axis, n in enumerate(space):
            turn = self.cycles[:, axis, None] * torch.arange(n, device=self.cycles.device)
            angle = (turn * (2 * math.pi / n)).to(image.device)
            phasor = torch.polar(torch.ones_like(angle), angle)
            if axis < len(space) - 1:
                wave = (wave[:, :, None] * phasor[:, None]).flatten(1)
        rows = torch.view_as_real(wave).to(image.dtype).repeat(1, c, 1)
        columns = torch.stack([phasor.real, -phasor.imag], 1).to(image.dtype)
        return torch.baddbmm(image.reshape(b, -1, space[-1]), rows, columns).view(image.shape)


@dataclass(frozen=True)
class Motion:
    """Rigid in-plane motion during the acquisition: lines of k-space see different poses.

    Lines are acquired from -k to +k. Before ``start`` and after ``stop`` (fractions of the scan)
    the patient lies in another pose; the centre shows the image as it is.
    """

    angle: Float[Tensor, "b 2"]
    shift_mm: Float[Tensor, "b 2 dim"]
    start: Float[Tensor, " b"]
    stop: Float[Tensor, " b"]
    axis: int
    spacing_mm: tuple[float, ...]

    @classmethod
    def sample(cls, generator: torch.Generator, shape: Sequence[int], profile: Profile) -> "Motion":
        """Shifts of the drawn amount in random directions, and one degree of turn per mm."""
        count, dim, device = shape[0], len(shape) - 2, generator.device
        amount = profile.draw("motion", generator, count)[:, None]
        way = torch.randn(count, 2, dim, generator=generator, device=device)
        way = way / way.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        turn = torch.rand(count, 2, generator=generator, device=device) * 2 - 1
        edge = torch.rand(2, count, generator=generator, device=device) * 0.3 + 0.1
        return cls(
            angle=torch.deg2rad(turn * amount),
            shift_mm=way * amount[..., None],
            start=edge[0],
            stop=1 - edge[1],
            axis=_phase_axis(generator, shape),
            spacing_mm=profile.spacing(dim),
        )

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        n = image.shape[2 + self.axis]
        when = torch.fft.ifftshift(torch.arange(n) / n).to(self.start.device)[None]
        lines = (when < self.start[:, None], when >= self.stop[:, None])
        real, imaginary = image, torch.zeros_like(image)
        for pose, seen in enumerate(lines):
            positions = rigid_positions(
                image, self.angle[:, pose], self.shift_mm[:, pose], self.spacing_mm
            )
            change = weight_lines(
                resample(image, positions) - image, seen.to(torch.complex64), self.axis
            )
            real, imaginary = real + change.real, imaginary + change.imag
        return torch.sqrt(real**2 + imaginary**2)


@dataclass(frozen=True)
class Rician:
    """Thermal noise of both receiver channels, then the magnitude.

    $$ y = \\sqrt{(x + \\sigma n_1)^2 + (\\sigma n_2)^2} $$

    White noise in k-space is white noise in the image. In air the mean is sigma sqrt(pi/2)
    (Gudbjartsson & Patz 1995).
    """

    sigma: Float[Tensor, " b"]
    seed: int

    @classmethod
    def sample(cls, generator: torch.Generator, shape: Sequence[int], profile: Profile) -> "Rician":
        return cls(profile.draw("rician", generator, shape[0]), draw_seed(generator))

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        generator = torch.Generator(image.device).manual_seed(self.seed)
        flat, sigma = image.flatten(1), self.sigma.to(image)[:, None]
        size = _CACHED // len(flat) if image.device.type == "cpu" else flat.shape[1]
        parts = [_rician(part, sigma, generator) for part in flat.split(max(1, size), dim=1)]
        return torch.cat(parts, 1).view(image.shape)


_CACHED = 1 << 16
"""Voxels whose buffers stay in the cache from one step to the next."""


def _rician(
    image: Float[Tensor, "b n"], sigma: Float[Tensor, "b 1"], generator: torch.Generator
) -> Float[Tensor, "b n"]:
    """Box & Muller 1958: ``-2 log u`` is the squared length of both normal numbers together.

    Length and angle come from 16 random bits each, which takes half of the time of two normal
    numbers: their levels lie closer than a scanner's own, and lengths over 4.85 sigma (one voxel
    in 130,000) do not occur.
    """
    words = torch.empty(math.ceil(image.numel() / 2), dtype=torch.int64, device=image.device)
    bits = words.random_(-(2**63), None, generator=generator).view(torch.int16)
    length, angle = (
        part.view(image.shape).to(image.dtype)
        for part in (bits[: image.numel()], bits[-image.numel() :])
    )
    square = length.add_(2**15 + 0.5).mul_(2**-16).log_().mul_(-2 * sigma**2)
    real = angle.mul_(math.pi / 2**15).cos_().mul_(square.sqrt())
    imaginary_squared = square.addcmul_(real, real, value=-1).clamp_(min=0)
    along = image + real
    return torch.addcmul(imaginary_squared, along, along).sqrt()


def _phase_axis(generator: torch.Generator, shape: Sequence[int]) -> int:
    """Phase encoding runs along one of the first two axes, the same for a batch."""
    axes = min(2, len(shape) - 2)
    return int(torch.randint(axes, (1,), generator=generator, device=generator.device))
