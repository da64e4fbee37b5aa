"""What the training loop costs over a bare one, and whether memory grows with steps or cases.

    python benchmarks/train.py loop --steps 60 --rounds 5
    python benchmarks/train.py loading --preset phantom-mri --steps 20
    python benchmarks/train.py memory --steps 1000 --cases 1000

The bare loop is what one would write by hand: the same network, batch, loss and optimizer, without
loader, log, checkpoints, signals or checks. Both are timed in turns, the medians compared.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from itertools import pairwise, product
from pathlib import Path

import torch
from torch import Tensor

from penumbra import trained
from penumbra.augment import to_display
from penumbra.config import Config, resolve
from penumbra.data.patches import Patches
from penumbra.data.phantom import write_phantom
from penumbra.ground import prepare
from penumbra.model import Network
from penumbra.training.loop import fit
from penumbra.training.losses import segmentation_loss
from penumbra.training.schedule import Schedule
from penumbra.training.supervised import Population, Supervised

CPU = torch.device("cpu")
Spent = tuple[float, float]
WARM = 3
"""Steps before a worker and every library have started."""
PATCH, CLASSES = (64, 64), 4
SOURCES = [("kept", 0), ("read here", 0), ("one worker", 1)]
"""Where samples come from, and by how many loader processes."""


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


def ours(steps: int, batch: int, device: torch.device, workers: int) -> Spent:
    with tempfile.TemporaryDirectory() as folder:
        schedule = Schedule(steps=steps, batch=batch, lr=1e-3, workers=workers)
        stage, samples = Plain(device), Samples(1000)
        begun = now()
        fit(stage, samples, schedule, folder=Path(folder), device=device)
        return since(begun, steps)


def now() -> Spent:
    return time.perf_counter(), time.process_time()


def since(begun: Spent, steps: int) -> Spent:
    """Seconds per step: by the clock, and of computing, which other jobs hardly disturb."""
    return (time.perf_counter() - begun[0]) / steps, (time.process_time() - begun[1]) / steps


def bare(steps: int, batch: int, device: torch.device) -> Spent:
    module, samples = network().to(device).train(), Samples(1000)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    begun = now()
    for step in range(steps):
        items = [samples[step * batch + i] for i in range(batch)]
        stacked = {k: torch.stack([item[k] for item in items]).to(device) for k in items[0]}
        optimizer.zero_grad()
        loss_of(module, stacked).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return since(begun, steps)


class Kept:
    """Samples that were read before: what a step costs when loading costs nothing."""

    def __init__(self, samples: Patches, keys: int) -> None:
        self.items = [samples[key] for key in range(keys)]

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        return self.items[key % len(self.items)]

    def case_of(self, key: int) -> str:
        return str(key)


def phantoms(folder: Path, cases: int, shape: tuple[int, int]) -> tuple[Path, Config]:
    """A cohort of small radiographs and the settings for it."""
    write_phantom(folder, modality="xray", cases=cases, seed=0, shape=shape)
    lean = {"data.image_size": list(shape), "data.patch": list(shape), "device": "cpu"}
    return folder, resolve("phantom-xray", size="tiny", overrides=lean)


class Read:
    """Samples as they are read, and the computing that this took, in the midst of a training."""

    def __init__(self, samples: Patches) -> None:
        self.samples, self.spent = samples, 0.0

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        begun = time.thread_time()
        item = self.samples[key]
        self.spent += time.thread_time() - begun
        return item

    def case_of(self, key: int) -> str:
        return str(key)


class Timed(Supervised):
    """The real stage, and when its steps ended."""

    def after_step(self, step: int) -> None:
        super().after_step(step)
        self.ended = [*getattr(self, "ended", []), now()]

    def medians(self) -> Spent:
        """Seconds of a step: by the clock, and of computing in this process."""
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(self.ended[WARM:])]
        return statistics.median(s[0] for s in steps), statistics.median(s[1] for s in steps)


def loading(preset: str, steps: int, rounds: int, folder: Path) -> dict[str, float]:
    """Seconds per step of the real stage at size small, by where samples come from, in turns.

    The deterministic first part of a training, whose steps are the shortest.
    """
    config = resolve(preset, size="small", overrides={"device": "cpu"})
    write_phantom(folder / "data", modality=config.modality, cases=16, seed=0)
    ground = prepare(config, folder / "data", folder / "run")
    patches = Patches(ground.store, ground.parts["train"], settings=config.data, seed=0)
    voxels = math.prod(config.data.patch)
    found: dict[str, list[Spent]] = {}
    shares = []
    for turn, (name, workers) in product(range(rounds), SOURCES):
        stage = Timed(
            trained.build(config, ground.store.task),
            config,
            Population(len(patches), voxels, ground.spacing_mm),
        )
        read = Read(patches)
        samples = Kept(patches, 2 * config.train.batch) if name == "kept" else read
        begun = time.process_time()
        schedule = Schedule(steps=steps, batch=config.train.batch, lr=1e-4, workers=workers)
        fit(stage, samples, schedule, folder=folder / f"{name}-{turn}", device=CPU)
        found.setdefault(name, []).append(stage.medians())
        if name == "read here":
            shares.append(read.spent / (time.process_time() - begun))
    result = {"reading, share of the computing": statistics.median(shares)}
    for name, each in found.items():
        for kind, which in (("clock", 0), ("computing", 1)):
            result[f"{name}, {kind}"] = statistics.median(t[which] for t in each)
            pairs = zip(each, found["kept"], strict=True)
            ratios = [a[which] / b[which] for a, b in pairs]
            result[f"{name} / kept, {kind}"] = statistics.median(ratios)
    return result


def memory_mb() -> float:
    """The process's own memory now (Linux): without the files that it has mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def growth(steps: int, cases: int, folder: Path) -> tuple[float, float]:
    """Megabytes of a training over prepared phantoms: after 50 steps, and how many more after all.

    The samples come from the store, as in a run.
    """
    data, config = phantoms(folder / "data", cases, (32, 32))
    os.environ["PENUMBRA_CACHE"] = str(folder / "cache")
    ground = prepare(config, data, folder / "run")
    patches = Patches(ground.store, ground.parts["train"], settings=config.data, seed=0)
    stage = Probe(trained.build(config, ground.store.task), warm=50)
    schedule = Schedule(steps=steps, batch=2, lr=1e-3)
    fit(stage, patches, schedule, folder=folder / "train", device=CPU)
    return stage.then, memory_mb() - stage.then


class Probe(Plain):
    """Notes the process's memory once it is warm."""

    def __init__(self, module: Network, *, warm: int) -> None:
        self.module, self.warm, self.then = module, warm, 0.0

    def loss(
        self, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if step == self.warm:
            self.then = memory_mb()
        image = to_display(batch["image"], modality="xray", window_hu=(0.0, 1.0))
        output = self.module(image)
        assert output.findings is not None
        return {"total": output.findings.square().mean()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("loop", "loading", "memory"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--preset", default="phantom-xray")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["PENUMBRA_CACHE"] = f"{name}/cache"
        match options.part:
            case "loop":
                result = overhead(options.steps, options.batch, options.rounds)
            case "loading":
                result = loading(options.preset, options.steps, options.rounds, Path(name))
            case "memory":
                warm, more = growth(options.steps, options.cases, Path(name))
                result = {"MB after 50 steps": warm, f"more after {options.steps}": more}
    print(json.dumps({k: round(v, 4) for k, v in result.items()}, indent=1))


def overhead(steps: int, batch: int, rounds: int) -> dict[str, float]:
    """Ours and the bare loop in turns, so that a busy moment of the machine meets both."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bare(5, batch, device)
    times: dict[str, list[Spent]] = {"bare": [], "ours": [], "ours, 1 worker": []}
    for _ in range(rounds):
        times["bare"].append(bare(steps, batch, device))
        times["ours"].append(ours(steps, batch, device, 0))
        times["ours, 1 worker"].append(ours(steps, batch, device, 1))
    result = {}
    for name, each in times.items():
        for kind, which in (("clock", 0), ("computing", 1)):
            result[f"{name}, {kind}: s per step"] = statistics.median(t[which] for t in each)
            pairs = zip(each, times["bare"], strict=True)
            ratios = sorted(a[which] / b[which] for a, b in pairs)
            label = f"{name} / bare, {kind}"
            result[label] = statistics.median(ratios)
            result |= {f"{label}, lowest": ratios[0], f"{label}, highest": ratios[-1]}
    return {key: value for key, value in result.items() if not key.startswith("bare / bare")}


if __name__ == "__main__":
    main()
