"""How close cheap uncertainty maps come to many exact draws, on a small trained network.

Run: ``OMP_NUM_THREADS=1 python benchmarks/fidelity.py``. A 2-D network learns ellipses with
blurred, noisy borders for a minute; its posterior gets sigma = 0.15 |w|. Each estimator's
mutual-information map is compared with that of 256 exact draws of another bank, on held-out images,
with its cost in passes of the same network.
"""

import argparse
import time

import torch
from torch import Tensor
from torch.nn import functional

from penumbra import bayes
from penumbra.bayes.bank import Bank
from penumbra.bayes.propagate import Propagation
from penumbra.bayes.stopping import MOST, enough_draws
from penumbra.bayes.stream import window_maps
from penumbra.model import Network

SIDE, CLASSES, MANY = 64, 3, 256


def ellipses(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images with two kinds of ellipses, and their labels; contrast varies, noise is strong."""
    axis = torch.linspace(-1, 1, SIDE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    image, label = torch.zeros(count, SIDE, SIDE), torch.zeros(count, SIDE, SIDE).long()
    for kind in (1, 2):
        for _ in range(2):
            u = torch.rand(count, 5, 1, 1, generator=generator)
            centre_x, centre_y = 1.4 * u[:, 0] - 0.7, 1.4 * u[:, 1] - 0.7
            a, b = 0.12 + 0.25 * u[:, 2], 0.12 + 0.25 * u[:, 3]
            inside = ((x - centre_x) / a).square() + ((y - centre_y) / b).square() < 1
            label[inside] = kind
            image = torch.where(inside, 0.25 * kind + 0.3 * u[:, 4], image)
    image = functional.avg_pool2d(image[:, None], 5, stride=1, padding=2)
    noise = torch.randn(image.shape, generator=generator)
    return image + 0.15 * noise, label


def trained(steps: int) -> Network:
    generator = torch.Generator().manual_seed(0)
    net = Network(
        channels=1,
        classes=CLASSES,
        findings=0,
        dim=2,
        widths=(16, 32, 64),
        gates=False,
        decoder_convs=2,
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(steps):
        image, label = ellipses(8, generator)
        loss = functional.cross_entropy(net(image).segmentation, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"trained {steps} steps, last loss {float(loss.detach()):.3f}")
    return net.eval()


def maps(bank: Bank, image: Tensor, draws: int) -> tuple[Tensor, Tensor]:
    found = window_maps(bank, image, draws=draws).voxels
    return found.mutual_information_nats, found.probability


def report(
    name: str, got: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], cost: float
) -> None:
    r = float(torch.stack([got[0].flatten(), wanted[0].flatten()]).corrcoef()[0, 1])
    scale = float(got[0].mean() / wanted[0].mean())
    rmse = float((got[1] - wanted[1]).square().mean().sqrt())
    print(f"| {name} | {r:.3f} | {scale:.2f} | {rmse:.4f} | {cost:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--trials", type=int, default=20, help="banks for automatic stopping")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net = trained(arguments.steps)
    generator = torch.Generator().manual_seed(1)
    image, _ = ellipses(arguments.images, generator)
    with torch.inference_mode():
        net(image)
        start = time.process_time()
        for _ in range(5):
            net(image).segmentation.softmax(1)
        unit = (time.process_time() - start) / 5
        bayes.convert(net, sigma0=0.15)
        wanted = maps(bayes.bank(net, draws=MANY, generator=generator), image, MANY)
        print(
            "| estimator | r of MI map | scale | RMSE of mean p | passes |\n|---|---|---|---|---|"
        )
        for skip in ("exact", "mean"):
            seed = torch.Generator().manual_seed(2)
            bank = bayes.bank(net, draws=64, generator=seed, skip=skip)
            for t in (8, 16, 32, 64):
                start = time.process_time()
                got = maps(bank, image, t)
                cost = (time.process_time() - start) / unit
                report(f"T={t}, skip {skip}", got, wanted, cost)
        start = time.process_time()
        got = maps(Propagation(net), image, 99)
        cost = (time.process_time() - start) / unit
        report("variance propagation", got, wanted, cost)
        stopping(net, image, wanted, arguments.trials)


def stopping(net: Network, image: Tensor, wanted: tuple[Tensor, Tensor], trials: int) -> None:
    """Where automatic stopping ends, and what the map is then worth: over many banks."""
    used, reached = [], []
    for trial in range(trials):
        seed = torch.Generator().manual_seed(100 + trial)
        bank = bayes.bank(net, draws=MOST, generator=seed)
        draws = enough_draws(bank, [image])
        information, _ = maps(bank, image, draws)
        pair = torch.stack([information.flatten(), wanted[0].flatten()])
        used.append(draws)
        reached.append(float(pair.corrcoef()[0, 1]))
    order = sorted(reached)
    print(
        f"auto, {trials} banks: draws {min(used)} to {max(used)}, "
        f"median {sorted(used)[trials // 2]}; "
        f"r of the MI map: least {order[0]:.3f}, median {order[trials // 2]:.3f}; "
        f"at least 0.97 in {sum(r >= 0.97 for r in reached)}"
    )


if __name__ == "__main__":
    main()
