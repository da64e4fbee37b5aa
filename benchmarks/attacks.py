"""What an attack costs, as ratios measured in the same run.

    python benchmarks/attacks.py [--rounds 7] [--batch 8 32] [--size 64] [--part attacks|training]

1. One PGD step against one bare forward pass of the same network, whole or in the chunks that the
   ladder uses, whichever is faster (target: at most 2.1).
2. PGD-10 against torchattacks, foolbox and the Adversarial Robustness Toolbox, where they are
   installed (``pip install --no-deps torchattacks foolbox eagerpy adversarial-robustness-toolbox``;
   torchvision is not needed). Each runs in a process of its own, ours with ``penumbra.memory`` as
   every attack of an evaluation, the peers as they come; torchattacks again with the same help,
   where eight images must be a tie: the network and its gradient are all the work there is.
3. A training step of the supervised stage with the adversarial term against one without it
   (target: at most 2.0 as the presets have it, two fifths of the batch attacked by FGSM).
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection

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
PEERS = {"torchattacks": "torchattacks", "foolbox": "foolbox", "ART": "art"}
"""Name -> module."""

Job = Callable[[], object]
Clock = Callable[[], float]
"""CPU seconds of one more run of a job."""


def classifier() -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in ((1, 32), (32, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.InstanceNorm2d(o, affine=True), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))


def attack(name: str, batch: int, size: int) -> Job:
    """A PGD-10 from the image itself, ours or a peer's; ``forward`` is ten bare passes."""
    chance = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = classifier().eval()
    image = torch.rand((batch, 1, size, size), generator=chance)
    labels = torch.randint(0, 4, (batch,), generator=chance)
    at_once = Ladder().at_once(image)

    def attacked(part: Tensor, truth: Tensor) -> Tensor:
        objective = label_loss(lambda x: network(x).softmax(1)[:, :, None], truth[:, None])
        around = ball(part, eps=EPS)
        return pgd(objective, around, steps=STEPS, step=STEP, generator=None, keep="last")

    def ours() -> Tensor:
        parts = zip(image.split(at_once), labels.split(at_once), strict=True)
        return torch.cat([attacked(part, truth) for part, truth in parts])

    match name:
        case "forward":
            return lambda: passes(network, image, batch)
        case "forward in chunks":
            return lambda: passes(network, image, at_once)
        case "penumbra":
            return ours
        case "torchattacks":
            import torchattacks

            peer = torchattacks.PGD(network, eps=EPS, alpha=STEP, steps=STEPS, random_start=False)
            return lambda: peer(image, labels)
        case "foolbox":
            import foolbox

            wrapped = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
            linf = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS, random_start=False)
            return lambda: linf(wrapped, image, labels, epsilons=EPS)
        case _:
            from art.attacks.evasion import ProjectedGradientDescentPyTorch
            from art.estimators.classification import PyTorchClassifier

            shape = (1, size, size)
            model = PyTorchClassifier(network, nn.CrossEntropyLoss(), shape, 4, clip_values=(0, 1))
            art = ProjectedGradientDescentPyTorch(
                model, eps=EPS, eps_step=STEP, max_iter=STEPS, batch_size=batch, verbose=False
            )
            arrays = image.numpy(), labels.numpy()
            return lambda: art.generate(*arrays)


def passes(network: nn.Module, image: Tensor, chunk: int) -> None:
    with torch.no_grad():
        for _ in range(STEPS):
            for part in image.split(chunk):
                network(part)


@contextmanager
def apart(name: str, batch: int, size: int, keep: bool) -> Iterator[Clock]:
    """The clock of an attack in a process of its own, where nobody else's memory lies ready."""
    here, there = get_context("spawn").Pipe()
    worker = get_context("spawn").Process(target=serve, args=(there, name, batch, size, keep))
    worker.start()

    def clock() -> float:
        here.send(True)
        return float(here.recv())

    try:
        yield clock
    finally:
        here.send(False)
        worker.join()


def serve(pipe: Connection, name: str, batch: int, size: int, keep: bool) -> None:
    settle(keep)
    clock = timed(attack(name, batch, size))
    while pipe.recv():
        pipe.send(clock())


def settle(keep: bool) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the peers' own
    if keep:
        keep_freed()


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


def timed(job: Job) -> Clock:
    def clock() -> float:
        start = time.process_time()
        job()
        return time.process_time() - start

    return clock


def measure(clocks: dict[str, Clock], rounds: int) -> dict[str, float]:
    """Best CPU time of each job (one thread); rounds interleave, so all meet the same machine."""
    best = dict.fromkeys(clocks, float("inf"))
    for clock in clocks.values():
        clock()
    for _ in range(rounds):
        for name, clock in clocks.items():
            best[name] = min(best[name], clock())
    return best


def check(name: str, value: float, limit: float) -> bool:
    verdict = "ok" if value <= limit else "MISSED"
    print(f"  {name:<42}{value:6.2f}  (at most {limit:.2f}) {verdict}")
    return value <= limit


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--batch", type=int, nargs="+", default=[8, 32])
    arguments.add_argument("--size", type=int, default=64)
    arguments.add_argument("--part", choices=("attacks", "training", "both"), default="both")
    arguments.add_argument(
        "--hand-back",
        action="store_true",
        help="freed memory goes back to the kernel, as by default",
    )
    chosen = arguments.parse_args()
    settle(not chosen.hand_back)
    good: list[bool] = []
    if chosen.part != "training":
        for batch in chosen.batch:
            good += compare_attacks(batch, chosen.size, chosen.rounds, not chosen.hand_back)
    if chosen.part != "attacks":
        good += compare_training(chosen.batch[0], chosen.size, chosen.rounds)
    return 0 if all(good) else 1


def compare_attacks(batch: int, size: int, rounds: int, keep: bool) -> list[bool]:
    peers = [peer for peer, module in PEERS.items() if find_spec(module)]
    kept = {name: keep for name in ("forward", "forward in chunks", "penumbra")}
    with ExitStack() as stack:
        clocks = {
            name: stack.enter_context(apart(name, batch, size, keep))
            for name, keep in (kept | dict.fromkeys(peers, False)).items()
        }
        if "torchattacks" in peers:
            helped = apart("torchattacks", batch, size, keep)
            clocks["torchattacks, memory kept"] = stack.enter_context(helped)
        seconds = measure(clocks, rounds)
    ours = seconds["penumbra"]
    print(f"PGD-{STEPS}, batch {batch}, {size} x {size}; {1000 * ours:.0f} ms")
    bare = min(seconds["forward"], seconds["forward in chunks"])
    good = [check("one step / one forward", ours / bare, 2.1)]
    print(f"  {'one step / one forward of the whole batch':<42}{ours / seconds['forward']:6.2f}")
    for name in clocks:
        if name in PEERS:
            good.append(check(f"ours / {name}", ours / seconds[name], 1.0))
        elif name not in kept:
            print(f"  {f'ours / {name}':<42}{ours / seconds[name]:6.2f}")
    missing = [peer for peer in PEERS if peer not in peers]
    print(f"  not installed, skipped: {', '.join(missing) or 'none'}")
    return good


def compare_training(batch: int, size: int, rounds: int) -> list[bool]:
    good: list[bool] = []
    clocks = {name: timed(job) for name, job in training(batch, size).items()}
    cost = measure(clocks, rounds)
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
