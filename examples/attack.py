"""Attack a network through the mean of its posterior draws, inside an eps ball."""

import torch

from penumbra import bayes
from penumbra.model import Network
from penumbra.robust.attack import pgd
from penumbra.robust.ball import ball
from penumbra.robust.objective import label_loss

network = Network(channels=1, classes=2, findings=0, dim=2, widths=(8, 16), seed=0).eval()
bayes.convert(network, sigma0=0.1)
network.requires_grad_(False)
draws = bayes.bank(network, draws=4, generator=torch.Generator().manual_seed(0))


def predict(image: torch.Tensor) -> torch.Tensor:
    return torch.stack([draw.segmentation for draw in draws.probabilities(image)]).mean(0)


image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
labels = predict(image).argmax(1)  # what it says of the clean image
objective = label_loss(predict, labels)

for eps in (1 / 255, 4 / 255, 16 / 255):
    around = ball(image, eps=eps)
    attacked = pgd(objective, around, steps=10, generator=torch.Generator().manual_seed(2))
    changed = (predict(attacked).argmax(1) != labels).float().mean()
    print(f"eps {eps * 255:.0f}/255: {changed:.1%} of the voxels change their class")
