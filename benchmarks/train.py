"""What the training loop costs over a bare one, and whether memory grows with steps or cases.

    python benchmarks/train.py --steps 60 --rounds 5

The bare loop is what one would write by hand: the same network, batch, loss and optimizer, without
loader, log, checkpoints, signals or checks. Both are timed in turns, the medians compared.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from penumbra.model import Network
from penumbra.training.loop import fit
from penumbra.training.losses import segmentation_loss
from penumbra.training.schedule import Schedule

PATCH, CLASSES = (64, 64), 4


class Samples:
    """Images that cost nothing to make: the loop is measured, not the disk."""

    def __init__(self, cases: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(min(cases, 64), 1, *PATCH, generator=generator)
        self.labels = torch.randint(0, CLASSES, (min(cases, 64), *PATCH), generator=generator)
        self.cases = cases

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        case = key % self.cases
        place = case % len(self.images)
        return {"image": self.images[place], "segmentation": self.labels[place]}

    def case_of(self, key: int) -> str:
        return str(key % self.cases)


class Plain:
    """Segmentation and nothing else, so that the loop's share is as large as it can be."""

    name = "plain"

    def __init__(self, device: torch.device) -> None:
        self.module = network().to(device)

    def parameter_groups(self) -> list[dict[str, object]]:
        return [{"params": list(self.module.parameters()), "scale": 1.0}]

    def prepare(self, step: int) -> bool:
        return False

    def loss(
        self, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        return {"total": loss_of(self.module, batch)}

    def after_step(self, step: int) -> None:
        pass


def network() -> Network:
    return Network(
        channels=1, classes=CLASSES, findings=0, dim=2, widths=(16, 32, 64), neck=32, gates=True
    )


def loss_of(module: Network, batch: dict[str, Tensor]) -> Tensor:
    output = module(batch["image"])
    return segmentation_loss(output.segmentation, batch["segmentation"], dice=0.5).mean()


def ours(steps: int, batch: int, device: torch.device, workers: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        schedule = Schedule(steps=steps, batch=batch, lr=1e-3, workers=workers)
        stage, samples = Plain(device), Samples(1000)
        begun = time.perf_counter()
        fit(stage, samples, schedule, folder=Path(folder), device=device)
        return (time.perf_counter() - begun) / steps


def bare(steps: int, batch: int, device: torch.device) -> float:
    module, samples = network().to(device).train(), Samples(1000)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    begun = time.perf_counter()
    for step in range(steps):
        items = [samples[step * batch + i] for i in range(batch)]
        stacked = {k: torch.stack([item[k] for item in items]).to(device) for k in items[0]}
        optimizer.zero_grad()
        loss_of(module, stacked).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / steps


def memory_mb() -> float:
    """The process's memory now (Linux), not at its peak."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def growth(steps: int, cases: int, device: torch.device) -> float:
    """Megabytes that a training of ``steps`` leaves behind, after a warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Plain(device)
        warm, whole = (Schedule(steps=n, batch=2, lr=1e-3) for n in (50, steps))
        fit(stage, Samples(cases), warm, folder=Path(folder) / "warm", device=device)
        before = memory_mb()
        fit(stage, Samples(cases), whole, folder=Path(folder) / "whole", device=device)
        return memory_mb() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-steps", type=int, default=1000)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bare(5, options.batch, device)
    times: dict[str, list[float]] = {"bare": [], "ours": [], "ours, 2 workers": []}
    for _ in range(options.rounds):
        times["bare"].append(bare(options.steps, options.batch, device))
        times["ours"].append(ours(options.steps, options.batch, device, 0))
        times["ours, 2 workers"].append(ours(options.steps, options.batch, device, 2))
    medians = {name: statistics.median(each) for name, each in times.items()}
    result = {f"{name}: ms per step": 1e3 * t for name, t in medians.items()}
    result |= {f"{name} / bare": medians[name] / medians["bare"] for name in list(times)[1:]}
    result |= {
        f"MB after {options.memory_steps} steps, {cases} cases": growth(
            options.memory_steps, cases, device
        )
        for cases in (10, 1000)
    }
    print(json.dumps({k: round(v, 3) for k, v in result.items()}, indent=1))


if __name__ == "__main__":
    main()
