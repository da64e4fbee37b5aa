"""Scan a slice with a fan beam and with parallel rays, and rebuild it from either."""

import torch

from penumbra.augment.sinogram import fan_scanner, fbp, parallel_scanner, project

rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
body = ((rows - 32) ** 2 + (columns - 32) ** 2 < 24**2).float()
lesion = ((rows - 40) ** 2 + (columns - 28) ** 2 < 5**2).float()
image = (body + 0.2 * lesion)[None, None]
inside = ((rows - 32) ** 2 + (columns - 32) ** 2 < 20**2)[None, None]

spacing_mm = (2.0, 2.0)
for name, scanner in (
    ("parallel", parallel_scanner((64, 64), spacing_mm)),
    ("fan", fan_scanner((64, 64), spacing_mm, source_mm=570.0)),
):
    sinogram = project(image, scanner, spacing_mm)  # line integrals, differentiable
    rebuilt = fbp(sinogram, scanner, (64, 64), spacing_mm)
    error = (rebuilt - image)[inside].abs().mean()
    print(f"{name}: {tuple(sinogram.shape[2:])} rays, mean error {error:.3f} inside the body")
