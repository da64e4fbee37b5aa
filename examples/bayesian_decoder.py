"""Make the decoder Bayesian, draw functions from it once, and split what they say."""

import torch

from penumbra import bayes
from penumbra.model import Network

network = Network(channels=1, classes=3, findings=0, dim=2, widths=(8, 16, 32), seed=0).eval()
bayes.convert(network, sigma0=0.3)

draws = bayes.bank(network, draws=16, generator=torch.Generator().manual_seed(0))
image = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(1))
with torch.inference_mode():
    stacked = torch.stack([draw.segmentation for draw in draws.probabilities(image)])

maps = bayes.decompose(stacked)
print("draws", tuple(stacked.shape), "-> one map each", tuple(maps.epistemic.shape))
print(f"epistemic {maps.epistemic.mean():.4f} + aleatoric {maps.aleatoric.mean():.4f}")
print(f"        = total {maps.total.mean():.4f}")
assert torch.allclose(maps.epistemic + maps.aleatoric, maps.total, atol=1e-6)
