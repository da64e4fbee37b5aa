"""NT-Xent: log(2B - 1) when nothing is learned, near zero when every pair is found."""

import math

import torch

from penumbra.pretrain.contrastive import nt_xent

pairs = 64
nothing = torch.ones(pairs, 16)
print(f"all alike: {nt_xent(nothing, nothing, temperature=0.1):.3f} = log(2B - 1)")
print(f"           {math.log(2 * pairs - 1):.3f}")

everything = torch.eye(pairs)
print(f"all found: {nt_xent(everything, everything, temperature=0.1):.3f}")
