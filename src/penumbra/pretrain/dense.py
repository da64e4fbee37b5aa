"""Dense extensions for segmentation: local contrast and a light restoration head.

Not part of the proposal's L_self; ``pretrain.dense`` and ``pretrain.restoration`` switch them on.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from penumbra.augment.resample import resample
from penumbra.nets.decoder import Decoder


@dataclass(frozen=True)
class Places:
    """What the dense tasks must know of the views a and b.

    Attributes:
        positions_a: where every voxel of the view lies in the image, as ``resample`` wants it.
        clean: both views before grey values changed and regions were hidden, in display units.
        hidden: the hidden voxels of both views.
    """

    positions_a: Float[Tensor, "b *space dim"]
    positions_b: Float[Tensor, "b *space dim"]
    clean: Float[Tensor, "n c *space"]
    hidden: Bool[Tensor, "n *space"]


class DenseTask(nn.Module):
    """A decoder to half resolution, on whose features both tasks work; thrown away afterwards.

    Args:
        widths: channels of the encoder's levels, finest first.
        channels: of the image.
        seed: of the first weights.
    """

    def __init__(
        self, widths: tuple[int, ...], *, channels: int, dim: int, temperature: float, seed: int
    ) -> None:
        super().__init__()
        widths = widths[1:] if len(widths) > 2 else widths
        self.skipped = len(widths)  # levels of the encoder that the decoder uses, from the coarsest
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.decoder = Decoder(dim=dim, widths=widths)
        generator = torch.Generator().manual_seed(seed)
        self.restoration = Restoration(widths[0], channels, dim=dim, generator=generator)
        self.temperature = temperature

    def forward(
        self, features: tuple[Tensor, ...], places: Places, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Losses ``dense`` and ``restoration`` of the features of both views, a before b."""
        features = features[-self.skipped :]
        stream = features[-1]
        for level, skip in zip(self.decoder.levels, self.decoder.skips(features), strict=True):
            stream = level(stream, skip)
        a, b = stream.chunk(2)
        grid, shown = matching(places.positions_a, places.positions_b, a.shape[2:])
        dense = local_contrast(
            a, resample(b, grid), shown, temperature=self.temperature, generator=generator
        )
        restored = self.restoration(stream, tuple(places.clean.shape[2:]))
        loss = restoration_loss(restored, places.clean, places.hidden)
        return {"dense": dense, "restoration": loss}


def matching(
    positions_a: Float[Tensor, "b *space dim"],
    positions_b: Float[Tensor, "b *space dim"],
    grid: torch.Size,
    *,
    rounds: int = 8,
) -> tuple[Float[Tensor, "b *grid dim"], Bool[Tensor, "b *grid"]]:
    """Where in view b every place of view a is seen, on a coarser ``grid``, and whether it is.

    Solves ``P_b(y) = P_a(x)`` by the fixed point ``y <- y - (P_b(y) - P_a(x))``: a view's map is
    the identity plus a displacement whose slope stays well below one, so every round shrinks the
    error.
    """
    a, b = (positions.movedim(-1, 1) for positions in (positions_a, positions_b))
    linear = "bilinear" if a.ndim == 4 else "trilinear"
    wanted = functional.interpolate(a, size=grid, mode=linear, align_corners=True)
    field = functional.interpolate(b, size=grid, mode=linear, align_corners=True)
    at = wanted.clone()
    for _ in range(rounds):
        at = at - (resample(field, at.movedim(1, -1)) - wanted)
    there = resample(field, at.movedim(1, -1))
    side = 2 / max(max(grid) - 1, 1)
    shown = (at.abs() <= 1).all(1) & ((there - wanted).abs() < side / 2).all(1)
    return at.movedim(1, -1), shown


def local_contrast(
    features_a: Float[Tensor, "b c *space"],
    features_b: Float[Tensor, "b c *space"],
    valid: Bool[Tensor, "b *space"] | None = None,
    *,
    temperature: float,
    places: int = 64,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    r"""NT-Xent between places of one image: the same place in the other view is the positive.

    Negatives are the other drawn places of the *same* image, in both views (the local loss of
    Chaitanya et al. 2020); averaged over images and over anchors of both views. An image with
    fewer than two valid places has no negatives and takes no part.

    Args:
        features_a: features of view a, e.g. of an early decoder level.
        features_b: of view b, moved onto the grid of view a.
        valid: places that both views show; all when none.
        places: places drawn per image, at most.
        generator: on the CPU.

    Raises:
        ValueError: the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    a, b = (f.float().flatten(2).transpose(1, 2) for f in (features_a, features_b))
    shown = torch.ones(a.shape[:2], dtype=torch.bool) if valid is None else valid.flatten(1).cpu()
    # Random order with the valid places first.
    order = torch.rand(shown.shape, generator=generator) + (~shown).float()
    index = order.argsort(1)[:, :places]
    used = shown.gather(1, index).to(a.device).repeat(1, 2)
    rows = index.to(a.device)[..., None].expand(-1, -1, a.shape[2])
    z = functional.normalize(torch.cat([a.gather(1, rows), b.gather(1, rows)], 1), dim=2)
    logits = z @ z.transpose(1, 2) / temperature
    count = index.shape[1]
    blocked = torch.eye(2 * count, dtype=torch.bool, device=z.device) | ~used[:, None, :]
    target = torch.arange(2 * count, device=z.device).roll(count).expand(len(z), -1)
    # The row of an unused place must keep one finite logit; it is dropped below.
    blocked = blocked.scatter(2, target[..., None], False)
    losses = functional.cross_entropy(
        logits.masked_fill(blocked, -torch.inf).flatten(0, 1), target.flatten(), reduction="none"
    ).view(len(z), -1)
    counted = used & (used.sum(1, keepdim=True) > 2)
    return torch.where(counted, losses, 0).sum() / counted.sum().clamp_min(1)


class Restoration(nn.Module):
    """One 1x1 convolution from features to the image's channels, enlarged to the image's grid.

    Light on purpose: what it cannot say, the features must. Not Bayesian, thrown away afterwards.
    """

    def __init__(
        self, features: int, channels: int, *, dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        weight = torch.empty(channels, features, *(1,) * dim)
        weight.uniform_(-(features**-0.5), features**-0.5, generator=generator)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.dim = dim

    def forward(
        self, features: Float[Tensor, "b f *coarse"], size: tuple[int, ...]
    ) -> Float[Tensor, "b c *space"]:
        """The restored image, in the units of its target, on a grid of ``size``."""
        convolve = functional.conv2d if self.dim == 2 else functional.conv3d
        image = convolve(features, self.weight, self.bias)
        mode = "bilinear" if self.dim == 2 else "trilinear"
        return functional.interpolate(image, size=size, mode=mode, align_corners=False)


def restoration_loss(
    restored: Float[Tensor, "b c *space"],
    original: Float[Tensor, "b c *space"],
    hidden: Bool[Tensor, "b *space"],
) -> Float[Tensor, ""]:
    """Mean squared error over the voxels that the view has hidden; 0 when none is.

    Elsewhere copying would do, and nothing would be learned (He et al. 2022).
    """
    error = (restored.float() - original.float()).square().mean(1)
    return torch.where(hidden, error, 0).sum() / hidden.sum().clamp_min(1)
