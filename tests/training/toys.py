"""A stage small enough to know by heart, and samples to train it on."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penumbra import checkpoint
from penumbra.training.schedule import Schedule

CPU = torch.device("cpu")


class Points:
    """Sample ``key`` is noise that the key alone decides."""

    def __init__(self, *, broken: int = -1, poison: int = -1) -> None:
        self.broken, self.poison = broken, poison

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        if key == self.broken:
            raise OSError("Input/output error")
        x = torch.randn(3, generator=torch.Generator().manual_seed(key))
        return {"x": x * float("nan") if key == self.poison else x, "case": torch.tensor(key % 5)}

    def case_of(self, key: int) -> str:
        return f"patient-{key % 5}"


class Regression:
    """Noisy least squares; after ``grow`` steps a second layer joins."""

    name = "regression"

    def __init__(self, *, grow: int = 1000, explode: bool = False) -> None:
        torch.manual_seed(7)
        self.module = nn.Sequential(nn.Linear(3, 1))
        self.grow, self.explode, self.seen = grow, explode, 0

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters()), "scale": 1.0}]

    def prepare(self, step: int) -> bool:
        if len(self.module) > 1 or step < self.grow:
            return False
        torch.manual_seed(8)
        self.module.append(nn.Linear(1, 1))
        return True

    def loss(
        self, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if self.explode:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 TiB")
        noise = 0.1 * torch.randn(len(batch["x"]), 1, generator=generator)
        y = self.module(batch["x"])
        self.seen += 1
        return {"total": (y - batch["x"].sum(1, keepdim=True) + noise).square().mean()}

    def after_step(self, step: int) -> None:
        pass


def schedule(**changes: Any) -> Schedule:
    plan = {"steps": 12, "batch": 4, "lr": 0.01, "checkpoint_every": 4, "validate_every": 5}
    return Schedule(**{**plan, **changes})


def weights(folder: Path) -> dict[str, Tensor]:
    return checkpoint.read(folder / "last.safetensors")[0]


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
