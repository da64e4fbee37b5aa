"""Two views of one simulated brain, as pre-training sees it: one keeps its protocol."""

import numpy as np
import torch

from penumbra.augment import two_views

rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
head = (rows**2 / 0.8 + columns**2 / 0.6) < 1
brain = head * (0.5 + 0.1 * np.sin(9 * rows) * np.cos(7 * columns))
image = torch.from_numpy(brain)[None, None].float()

first, second = two_views(
    image,
    modality="mri",
    generator=torch.Generator().manual_seed(0),
    body=torch.from_numpy(head)[None],
    spacing_mm=(3.0, 3.0),
)
for name, view in (("first", first), ("second", second)):
    change = (view.image - image).abs().mean()
    touched = int((view.acquisition > 0).sum())
    print(f"{name}: mean change {change:.3f}, images with another acquisition: {touched}")
