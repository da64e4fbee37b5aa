"""Stage 1 (proposal 2.1): contrast, region and protocol on two views of every image."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from penumbra.augment import ACQUISITION, View, to_display, two_views
from penumbra.augment.elastic import Warp
from penumbra.augment.profile import profile_for
from penumbra.config import Config
from penumbra.errors import ConfigError
from penumbra.pretrain.dense import DenseTask, Places
from penumbra.pretrain.objective import SelfSupervised
from penumbra.pretrain.region import lung_zones, majority_organ, without_leak
from penumbra.training.loader import Batch
from penumbra.types import Task

LUNG_ZONES = 6


class Pretraining:
    """The self-supervised stage as the loop sees it.

    Args:
        simulated: the scans tell fewer than two protocols, so the acquisition that a view
            simulates is predicted in their place.
    """

    name = "pretrain"

    def __init__(
        self,
        objective: SelfSupervised,
        config: Config,
        *,
        task: Task,
        spacing_mm: tuple[float, ...],
        simulated: bool,
    ) -> None:
        self.module = objective
        self.config = config
        self.task = task
        self.spacing_mm = spacing_mm
        self.simulated = simulated
        if config.pretrain.dense or config.pretrain.restoration:
            objective.dense = DenseTask(
                config.model.widths,
                channels=len(task.channels),
                dim=config.data.dim,
                temperature=config.pretrain.temperature,
                seed=config.seed,
            )

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.module.parameters() if p.requires_grad], "scale": 1.0}]

    def prepare(self, step: int) -> bool:
        return False

    def after_step(self, step: int) -> None:
        self.module.after_step()

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        config = self.config
        organs = config.pretrain.regions == "organs"
        with torch.no_grad():
            views = two_views(
                batch["image"],
                modality=config.modality,
                generator=generator,
                body=batch["body"],
                spacing_mm=self.spacing_mm,
                labels=batch["segmentation"] if organs else None,
                kind=config.pretrain.views,
                held_out=config.train.held_out,
            )
            a, b = (self._display(view.image) for view in views)
            seen = without_leak(batch["position"], batch["valid"])
            boxes = [view_box(seen, batch["extent"], view) for view in views]
            position, extent = (torch.stack(both, 1) for both in zip(*boxes, strict=True))
        bfloat16 = config.train.precision == "bfloat16"
        with torch.autocast(a.device.type, torch.bfloat16, enabled=bfloat16):
            parts = self.module(
                a,
                b,
                position=position,
                protocol=self._protocol(batch, views),
                patient=batch["patient"],
                region=self._region(batch, position),
                extent=extent if config.pretrain.regions == "overlap" else None,
                places=self._places(views),
            )
        return {k if k == "total" else f"loss/{k}": v for k, v in parts.items()}

    def _display(self, image: Tensor) -> Tensor:
        window = self.config.data.window_hu
        return to_display(image, modality=self.config.modality, window_hu=window)

    def _protocol(self, batch: Batch, views: tuple[View, View]) -> Tensor:
        """Classes [b, view]; a view of another acquisition is never asked for its protocol."""
        changed = torch.stack([view.acquisition for view in views], 1)
        return (
            changed if self.simulated else torch.where(changed > 0, -1, batch["protocol"][:, None])
        )

    def _region(self, batch: Batch, position: Tensor) -> Tensor | None:
        """Region classes where they are not bins of the position."""
        match self.config.pretrain.regions:
            case "organs":
                return majority_organ(batch["segmentation"], organs=len(self.task.classes) - 1)
            case "lungs":
                return lung_zones(position)
            case _:
                return None

    def _places(self, views: tuple[View, View]) -> Places | None:
        if self.module.dense is None:
            return None
        a, b = views
        return Places(
            a.positions,
            b.positions,
            self._display(torch.cat([a.clean, b.clean])),
            torch.cat([a.hidden, b.hidden]),
        )


def begin(
    encoder: nn.Module,
    config: Config,
    *,
    task: Task,
    protocols: int,
    cuts: Sequence[Batch],
    spacing_mm: tuple[float, ...],
) -> Pretraining:
    """The stage before its first step, its region bins balanced on what views will show.

    Args:
        protocols: how many the scans tell.
        cuts: training patches, as many as make a fair sample of positions.

    Raises:
        ConfigError: the data have no regions of the kind that is asked for.
    """
    position, extent = (torch.stack([cut[k] for cut in cuts]) for k in ("position", "extent"))
    if config.pretrain.regions == "lungs" and position.shape[1] != 2:
        raise ConfigError("pretrain.regions: lungs needs radiographs; volumes have position bins")
    if config.pretrain.regions == "organs" and not task.classes:
        raise ConfigError("pretrain.regions: organs needs segmentations; use position or lungs")
    objective = SelfSupervised(
        encoder,
        features=config.model.widths[-1],
        settings=config.pretrain,
        protocols=protocol_classes(config, protocols),
        dim=position.shape[1],
        seed=config.seed,
        regions=region_classes(config, task),
    )
    objective.balance_regions(typical_positions(position, extent, config, spacing_mm))
    return Pretraining(objective, config, task=task, spacing_mm=spacing_mm, simulated=protocols < 2)


def region_classes(config: Config, task: Task) -> int | None:
    """How many regions there are to name; none where they are the bins of the position."""
    match config.pretrain.regions:
        case "organs":
            return len(task.classes) - 1
        case "lungs":
            return LUNG_ZONES
        case _:
            return None


def protocol_classes(config: Config, protocols: int) -> int:
    """Acquisition classes: the scans' own where there are two, else simulated ones, else none."""
    if protocols >= 2:
        return protocols
    return 1 + len(ACQUISITION[config.modality]) if config.pretrain.views == "anatomy" else 0


def view_box(
    position: Float[Tensor, "b axes"], extent: Float[Tensor, "b axes"], view: View
) -> tuple[Float[Tensor, "b axes"], Float[Tensor, "b axes"]]:
    """Centre and sides of a view in body-normalised units; those of its patch along other axes."""
    dim = view.centre.shape[1]
    position, extent = position.clone(), extent.clone()
    position[:, :dim] += (view.centre - 0.5) * extent[:, :dim]
    extent[:, :dim] *= view.extent[:, None]
    return position.clamp(0, 1), extent


def typical_positions(
    position: Float[Tensor, "n axes"],
    extent: Float[Tensor, "n axes"],
    config: Config,
    spacing_mm: tuple[float, ...],
) -> Float[Tensor, "n axes"]:
    """Where views of these patches have their centres: what region bins are balanced on."""
    shape = (len(position), 1, *config.data.patch)
    generator = torch.Generator().manual_seed(config.seed)
    warp = Warp.sample(generator, shape, profile_for(config.modality, spacing_mm))
    centre, _ = warp.box(config.data.patch)
    moved = position.clone()
    moved[:, : centre.shape[1]] += (centre - 0.5) * extent[:, : centre.shape[1]]
    return moved.clamp(0, 1)
