"""Attack a whole volume through the windows in which it is read, seams included."""

import torch

from penumbra.model import Network
from penumbra.robust.attack import pgd
from penumbra.robust.ball import ball
from penumbra.robust.objective import label_loss
from penumbra.robust.stochastic import windowed

network = Network(channels=1, classes=2, findings=0, dim=3, widths=(4, 8), seed=0).eval()
network.requires_grad_(False)


def predict(patch: torch.Tensor) -> torch.Tensor:
    return network(patch).segmentation.softmax(1)


whole = windowed(predict, window=(8, 8, 8))  # memory holds one window's graph
volume = torch.rand(1, 1, 16, 16, 12, generator=torch.Generator().manual_seed(1))
labels = whole(volume).argmax(1)
attacked = pgd(
    label_loss(whole, labels),
    ball(volume, eps=16 / 255),
    steps=5,
    generator=torch.Generator().manual_seed(2),
)
changed = (whole(attacked).argmax(1) != labels).float().mean()
print(f"{changed:.1%} of the voxels of {tuple(volume.shape[2:])} change their class")
