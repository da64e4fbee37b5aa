"""Anybody's networks: three of MONAI's, and what their disagreement says."""

import torch
from monai.networks.nets import BasicUNet

import penumbra as pn
from penumbra.bayes import decompose

image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
members = []
for seed in range(3):
    torch.manual_seed(seed)
    members.append(BasicUNet(2, 1, 2, features=(8, 8, 16, 16, 32, 8)).eval())

with torch.inference_mode():
    draws = torch.stack([member(image).softmax(1) for member in members])  # t b c h w

maps: pn.Uncertainty = decompose(draws)
print(maps)
print(f"do the members agree? epistemic {maps.epistemic.mean():.4f}")
print(f"are they sure by themselves? aleatoric {maps.aleatoric.mean():.4f}")
