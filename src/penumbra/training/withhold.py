"""Sequences that were not acquired, as a kind of augmentation."""

import torch
from torch import Tensor


def withhold(image: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Zero each channel of each image with ``probability``, as a sequence that was not acquired.

    A draw that would leave an image without any channel leaves it as it is.
    """
    if probability == 0 or image.shape[1] == 1:
        return image
    chance = torch.rand(image.shape[:2], generator=generator, device=generator.device)
    kept = (chance >= probability).to(image.device)
    kept |= ~kept.any(1, keepdim=True)
    return image * kept.reshape(*kept.shape, *[1] * (image.ndim - 2))
