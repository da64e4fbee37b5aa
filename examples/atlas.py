"""Hide whole regions of an atlas, where a crop lies in the body, as a pre-training view does."""

import torch

from penumbra.augment.masking import Masking, atlas_regions
from penumbra.augment.profile import profile_for

atlas = torch.arange(1, 17).reshape(4, 4)  # sixteen regions over the whole body
image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
lower = torch.tensor([[0.0, 0.0], [0.25, 0.25]])  # the crops' edges, 0..1 over the body
upper = torch.tensor([[1.0, 1.0], [0.75, 0.75]])
regions = atlas_regions(atlas, lower, upper, (32, 32))

masking = Masking.sample(
    torch.Generator().manual_seed(1), image.shape, profile_for("mri"), regions=regions
)
view = masking.apply(image)
for k in range(len(image)):
    names = sorted(set(regions[k][masking.hidden[k]].tolist()))
    changed = (view[k] != image[k]).float().mean()
    print(f"crop {k}: regions {names} hidden, {changed:.0%} of its voxels changed")
