"""Makes ``art_reference.npz``: FGSM and PGD of the Adversarial Robustness Toolbox on a small net.

Needs ``adversarial-robustness-toolbox`` (made with 1.20.1), which is not a dependency:
``python tests/robust/art_reference.py`` in an environment that has it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

EPS, STEP, STEPS = 0.06, 0.015, 7


def network() -> nn.Sequential:
    """A deterministic classifier of 12 x 12 images, four classes."""
    chance = torch.Generator().manual_seed(11)
    layers = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.Softplus(),
        nn.Conv2d(6, 6, 3, stride=2),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(150, 4),
    )
    for p in layers.parameters():
        p.data = torch.randn(p.shape, generator=chance) * 0.4
    return layers.eval()


def images() -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(12)
    # Away from 0 and 1, so that the order of clipping and projecting does not matter in L2.
    image = 0.25 + 0.5 * torch.rand((5, 1, 12, 12), generator=chance)
    return image, torch.randint(0, 4, (5,), generator=chance)


def attack_with_art(eps_l2: float, step_l2: float) -> dict[str, Any]:
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    image, labels = images()
    model = PyTorchClassifier(
        network(), nn.CrossEntropyLoss(), input_shape=(1, 12, 12), nb_classes=4, clip_values=(0, 1)
    )

    def pgd(norm: Any, eps: float, step: float) -> Any:
        attack = ProjectedGradientDescentPyTorch(
            model, norm=norm, eps=eps, eps_step=step, max_iter=STEPS, verbose=False
        )
        return attack.generate(image.numpy(), labels.numpy())

    return {
        "fgsm": FastGradientMethod(model, eps=EPS).generate(image.numpy(), labels.numpy()),
        "pgd_linf": pgd(np.inf, EPS, STEP),
        "pgd_l2": pgd(2, eps_l2, step_l2),
    }


if __name__ == "__main__":
    root = 12.0  # sqrt(12 * 12): ours counts the root mean square change, ART the Euclidean length
    np.savez_compressed(
        Path(__file__).with_name("art_reference.npz"), **attack_with_art(EPS * root, STEP * root)
    )
