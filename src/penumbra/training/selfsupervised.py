"""Stage 1 (proposal 2.1): contrast, region and protocol on two views of every image."""

from typing import Any

import torch
from torch import Tensor

from penumbra.augment import to_display, two_views
from penumbra.config import Config
from penumbra.pretrain.objective import SelfSupervised
from penumbra.pretrain.region import without_leak
from penumbra.training.loader import Batch
from penumbra.training.precision import autocast


class Pretraining:
    """The self-supervised stage as the loop sees it."""

    name = "pretrain"

    def __init__(
        self, objective: SelfSupervised, config: Config, *, spacing_mm: tuple[float, ...]
    ) -> None:
        self.module = objective
        self.config = config
        self.spacing_mm = spacing_mm

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.module.parameters() if p.requires_grad], "scale": 1.0}]

    def prepare(self, step: int) -> bool:
        return False

    def after_step(self, step: int) -> None:
        self.module.after_step()

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        config = self.config
        with torch.no_grad():
            views = two_views(
                batch["image"],
                modality=config.modality,
                generator=generator,
                body=batch["body"],
                spacing_mm=self.spacing_mm,
                labels=None,
                kind=config.pretrain.views,
                held_out=config.train.held_out,
            )
            window = config.data.window_hu
            a, b = (to_display(v.image, modality=config.modality, window_hu=window) for v in views)
            # A view whose acquisition was changed is never asked for its protocol.
            changed = torch.tensor([v.protocol_changed for v in views], device=a.device)
            protocol = torch.where(changed, -1, batch["protocol"][:, None])
        with autocast(a.device, config.train.precision):
            parts = self.module(
                a,
                b,
                position=without_leak(batch["position"], batch["valid"]),
                protocol=protocol,
                patient=batch["patient"],
            )
        return {k if k == "total" else f"loss/{k}": v for k, v in parts.items()}
