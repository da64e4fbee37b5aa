"""The gate's own attention beside two post-hoc explanations, for one finding of one film."""

import torch

from penumbra.attend.composite import composite
from penumbra.attend.explain import explain
from penumbra.model import Network

network = Network(channels=1, classes=0, findings=2, dim=2, widths=(8, 16), neck=8, seed=0).eval()
film = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
finding = 0

with torch.no_grad():
    output = network(film)
    gates = composite(output.attention, network.beta, film.shape[2:])  # anatomy, then findings
maps = {"attention": gates[:, 1 + finding]}
for method in ("grad_cam", "integrated_gradients"):
    maps[method] = explain(
        lambda image: network(image).findings,
        film,
        target=finding,
        method=method,
        generator=torch.Generator().manual_seed(1),
        layer=network.encoder.levels[-1],
    )

for name, relevance in maps.items():
    row, column = divmod(int(relevance.argmax()), film.shape[-1])
    print(f"{name:20} looks most at row {row}, column {column}")
