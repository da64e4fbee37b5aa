"""What an attack costs, as ratios measured in the same run.

    python benchmarks/attacks.py [--rounds 7] [--batch 8] [--size 64] [--part attacks|training]

1. One PGD step against one bare forward pass of the same network, whole or in the chunks that the
   ladder uses, whichever is faster (target: at most 2.1).
2. PGD-10 against torchattacks, foolbox and the Adversarial Robustness Toolbox, where they are
   installed (``pip install --no-deps torchattacks foolbox eagerpy adversarial-robustness-toolbox``;
   torchvision is not needed).
3. A training step of the supervised stage with the adversarial term against one without it
   (target: at most 2.0 as the presets have it, two fifths of the batch attacked by FGSM).
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from penumbra.config import resolve
from penumbra.memory import keep_freed
from penumbra.robust.attack import pgd
from penumbra.robust.ball import ball
from penumbra.robust.ladder import Ladder
from penumbra.robust.objective import label_loss
from penumbra.trained import build
from penumbra.training.loader import Batch
from penumbra.training.supervised import Population, Supervised
from penumbra.types import Task

EPS, STEP, STEPS = 8 / 255, 2 / 255, 10
CHUNK = Ladder().chunk
Job = Callable[[], object]


def classifier() -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in ((1, 32), (32, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.InstanceNorm2d(o, affine=True), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))


def attacks(batch: int, size: int) -> dict[str, Job]:
    """Each job is a PGD-10, from the image itself; ``forward`` is ten bare passes."""
    chance = torch.Generator().manual_seed(0)
    network = classifier().eval()
    image = torch.rand((batch, 1, size, size), generator=chance)
    labels = torch.randint(0, 4, (batch,), generator=chance)

    def forward(chunk: int) -> None:
        with torch.no_grad():
            for _ in range(STEPS):
                for part in image.split(chunk):
                    network(part)

    def attacked(part: Tensor, truth: Tensor) -> Tensor:
        objective = label_loss(lambda x: network(x).softmax(1)[:, :, None], truth[:, None])
        around = ball(part, eps=EPS)
        return pgd(objective, around, steps=STEPS, step=STEP, generator=None, keep="last")

    def ours() -> Tensor:
        parts = zip(image.split(CHUNK), labels.split(CHUNK), strict=True)
        return torch.cat([attacked(part, truth) for part, truth in parts])

    jobs: dict[str, Job] = {
        "forward": lambda: forward(batch),
        "forward in chunks": lambda: forward(CHUNK),
        "penumbra": ours,
    }
    if find_spec("torchattacks"):
        import torchattacks

        peer = torchattacks.PGD(network, eps=EPS, alpha=STEP, steps=STEPS, random_start=False)
        jobs["torchattacks"] = lambda: peer(image, labels)
    if find_spec("foolbox"):
        import foolbox

        wrapped = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
        linf = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS, random_start=False)
        jobs["foolbox"] = lambda: linf(wrapped, image, labels, epsilons=EPS)
    if find_spec("art"):
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier

        model = PyTorchClassifier(
            network, nn.CrossEntropyLoss(), (1, size, size), 4, clip_values=(0, 1)
        )
        art = ProjectedGradientDescentPyTorch(
            model, eps=EPS, eps_step=STEP, max_iter=STEPS, batch_size=batch, verbose=False
        )
        arrays = image.numpy(), labels.numpy()
        jobs["ART"] = lambda: art.generate(*arrays)
    return jobs


TASK = Task(
    modality="mri",
    channels=("flair", "t1", "t1ce"),
    classes=("background", "tumor"),
    label_values={0: 0, 1: 1},
    regions={"WT": (1,)},
)


def training(batch: int, size: int) -> dict[str, Job]:
    """One optimizer step of the supervised stage itself, by what the step holds."""
    chance = torch.Generator().manual_seed(0)
    labels = (torch.rand((batch, size, size), generator=chance) > 0.7).long()
    inside = torch.ones((batch, size, size), dtype=torch.bool)
    images: Batch = {
        "image": torch.rand((batch, 3, size, size), generator=chance),
        "segmentation": labels,
        "body": inside,
        "valid": inside,
        "masks": labels[:, None].float(),
        "annotated": torch.ones((batch, 1), dtype=torch.bool),
    }

    def step(**settings: object) -> Job:
        overrides = {name.replace("__", "."): value for name, value in settings.items()}
        bare = {"train.augment": 0.0, "train.steps": 100, "attention.gates": False}
        config = resolve("brain-mri", size="small", overrides=bare | overrides)
        stage = Supervised(build(config, TASK), config, Population(100, size * size, (1.0, 1.0)))
        stage.prepare(LATE)
        optimizer = torch.optim.Adam(stage.module.parameters(), 1e-4)

        def one() -> None:
            optimizer.zero_grad()
            stage.loss(images, LATE, chance)["total"].backward()
            optimizer.step()

        return one

    jobs = {}
    for posterior in ("none", "variational"):
        for name, settings in KINDS.items():
            jobs[f"{posterior}: {name}"] = step(bayes__posterior=posterior, **settings)
    return jobs


LATE = 99
"""A step of the last phase, when every term is on."""

KINDS: dict[str, dict[str, float]] = {
    "clean": {"adversarial__weight": 0.0},
    "as set, unweighted": {"adversarial__gamma": 0.0},
    "as set, weighted": {},
    "whole, weighted": {"adversarial__share": 1.0},
}
"""The adversarial step's settings; the presets attack a share of the batch."""


def measure(jobs: dict[str, Job], rounds: int) -> dict[str, float]:
    """Best CPU time of each job (one thread); rounds interleave, so all meet the same machine."""
    best = dict.fromkeys(jobs, float("inf"))
    for job in jobs.values():
        job()
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            best[name] = min(best[name], time.process_time() - start)
    return best


def check(name: str, value: float, limit: float) -> bool:
    verdict = "ok" if value <= limit else "MISSED"
    print(f"  {name:<42}{value:6.2f}  (at most {limit:.2f}) {verdict}")
    return value <= limit


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--size", type=int, default=64)
    arguments.add_argument("--part", choices=("attacks", "training", "both"), default="both")
    arguments.add_argument(
        "--hand-back",
        action="store_true",
        help="freed memory goes back to the kernel, as by default",
    )
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the peers' own
    if not chosen.hand_back:
        keep_freed()
    good: list[bool] = []
    if chosen.part != "training":
        good += compare_attacks(chosen.batch, chosen.size, chosen.rounds)
    if chosen.part != "attacks":
        good += compare_training(chosen.batch, chosen.size, chosen.rounds)
    return 0 if all(good) else 1


def compare_attacks(batch: int, size: int, rounds: int) -> list[bool]:
    seconds = measure(attacks(batch, size), rounds)
    print(f"PGD-{STEPS}, batch {batch}, {size} x {size}; {1000 * seconds['penumbra']:.0f} ms")
    bare = min(seconds["forward"], seconds["forward in chunks"])
    good = [check("one step / one forward", seconds["penumbra"] / bare, 2.1)]
    whole = seconds["penumbra"] / seconds["forward"]
    print(f"  {'one step / one forward of the whole batch':<42}{whole:6.2f}")
    for peer in ("torchattacks", "foolbox", "ART"):
        if peer in seconds:
            good.append(check(f"ours / {peer}", seconds["penumbra"] / seconds[peer], 1.0))
        else:
            print(f"  {peer}: not installed, skipped")
    return good


def compare_training(batch: int, size: int, rounds: int) -> list[bool]:
    good, cost = [], measure(training(batch, size), rounds)
    print(f"training step / clean step, batch {batch}, {size} x {size}")
    for name, seconds_spent in cost.items():
        posterior, _, kind = name.partition(": ")
        ratio = seconds_spent / cost[f"{posterior}: clean"]
        if kind.startswith("as set"):
            good.append(check(name, ratio, 2.0))
        elif kind == "clean":
            print(f"  {name:<42}{1000 * seconds_spent:6.0f} ms")
        else:
            print(f"  {name:<42}{ratio:6.2f}")
    return good


if __name__ == "__main__":
    raise SystemExit(main())
