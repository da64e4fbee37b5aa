"""What an attack costs, as ratios measured in the same run.

    python benchmarks/attacks.py [--rounds 7] [--batch 8] [--size 64]

1. One PGD step against one bare forward pass of the same network (target: at most 2.1).
2. PGD-10 against torchattacks, foolbox and the Adversarial Robustness Toolbox, where they are
   installed (``pip install --no-deps torchattacks foolbox eagerpy adversarial-robustness-toolbox``;
   torchvision is not needed).
3. A training step with the adversarial term against a clean one (target: at most 2.0 when half
   of the batch is attacked, by FGSM or with the reused gradient).
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
from torch.nn import functional as F

from penumbra.robust.adversarial import adversarial_loss, perturb, reused_images
from penumbra.robust.attack import pgd
from penumbra.robust.ball import ball
from penumbra.robust.objective import label_loss

EPS, STEP, STEPS = 8 / 255, 2 / 255, 10
Job = Callable[[], object]


def classifier() -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in ((1, 32), (32, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.InstanceNorm2d(o, affine=True), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))


def segmenter() -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in ((1, 32), (32, 32), (32, 32)):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.InstanceNorm2d(o, affine=True), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(32, 4, 1))


def attacks(batch: int, size: int) -> dict[str, Job]:
    """Each job is a PGD-10, from the image itself; ``forward`` is ten bare passes."""
    chance = torch.Generator().manual_seed(0)
    network = classifier().eval()
    image = torch.rand((batch, 1, size, size), generator=chance)
    labels = torch.randint(0, 4, (batch,), generator=chance)

    def forward() -> None:
        with torch.no_grad():
            for _ in range(STEPS):
                network(image)

    def ours() -> Tensor:
        objective = label_loss(lambda x: network(x).softmax(1)[:, :, None], labels[:, None])
        around = ball(image, eps=EPS)
        return pgd(objective, around, steps=STEPS, step=STEP, generator=None, keep="last")

    jobs: dict[str, Job] = {"forward": forward, "penumbra": ours}
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


def training(batch: int, size: int) -> dict[str, Job]:
    """One optimizer step of a segmentation network, by how adversarial images are made."""
    chance = torch.Generator().manual_seed(0)
    network = segmenter()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    image = torch.rand((batch, 1, size, size), generator=chance)
    labels = torch.randint(0, 4, (batch, size, size), generator=chance)
    one = torch.ones(batch)

    def predict(x: Tensor) -> Tensor:
        return network(x).softmax(1)

    def loss(x: Tensor) -> Tensor:
        return F.cross_entropy(network(x), labels[: len(x)], reduction="none").flatten(1).mean(1)

    def update(total: Tensor) -> None:
        optimizer.zero_grad()
        total.mean().backward()
        optimizer.step()

    def clean() -> None:
        update(loss(image))

    def fgsm(attacked_images: int) -> None:
        part = slice(attacked_images)
        attacked = perturb(
            predict,
            image[part],
            labels[part],
            eps=EPS,
            steps=1,
            norm="linf",
            valid=None,
            generator=chance,
        )
        update(adversarial_loss(loss(image), loss(attacked), one[part], alpha=0.5))

    def reused(attacked_images: int) -> None:
        leaf = image.detach().requires_grad_()
        optimizer.zero_grad()
        (0.5 * loss(leaf)).mean().backward()
        assert leaf.grad is not None
        part = slice(attacked_images)
        around = ball(image[part], eps=EPS)
        attacked = reused_images(leaf.grad[part], around, generator=chance)
        (0.5 * loss(attacked)).mean().backward()
        optimizer.step()

    half = batch // 2
    return {
        "clean": clean,
        "fgsm": lambda: fgsm(batch),
        "fgsm, half": lambda: fgsm(half),
        "reused": lambda: reused(batch),
        "reused, half": lambda: reused(half),
    }


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
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the peers' own
    seconds = measure(attacks(chosen.batch, chosen.size), chosen.rounds)
    print(f"PGD-{STEPS}, batch {chosen.batch}, {chosen.size} x {chosen.size}")
    good = [check("one step / one forward", seconds["penumbra"] / seconds["forward"], 2.1)]
    for peer in ("torchattacks", "foolbox", "ART"):
        if peer in seconds:
            good.append(check(f"ours / {peer}", seconds["penumbra"] / seconds[peer], 1.0))
        else:
            print(f"  {peer}: not installed, skipped")
    cost = measure(training(chosen.batch, chosen.size), chosen.rounds)
    print("training step / clean step")
    for name in ("fgsm", "reused"):
        print(f"  {name + ', whole batch':<42}{cost[name] / cost['clean']:6.2f}")
        half = cost[f"{name}, half"] / cost["clean"]
        good.append(check(f"{name}, half of the batch", half, 2.0))
    return 0 if all(good) else 1


if __name__ == "__main__":
    raise SystemExit(main())
