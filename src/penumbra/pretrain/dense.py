"""Dense extensions for segmentation: local contrast and a light restoration head.

Not part of the proposal's L_self; a study switches them on beside it. Both need to know which
place of a view shows which place of the image, so they take features on a grid shared by both.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


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
