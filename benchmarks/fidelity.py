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
from penumbra.bayes.propagate import propagate
from penumbra.bayes.stream import enough_draws
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
    moments = bayes.Moments()
    encoded = bank.encode(image)
    for t in range(draws):
        moments.update(bank.decode(encoded, t).segmentation.softmax(1))
    found = moments.uncertainty()
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
            for antithetic in (False, True):
                seed = torch.Generator().manual_seed(2)
                bank = bayes.bank(net, draws=64, generator=seed, skip=skip, antithetic=antithetic)
                for t in (8, 16, 32, 64):
                    start = time.process_time()
                    got = maps(bank, image, t)
                    cost = (time.process_time() - start) / unit
                    name = f"T={t}, skip {skip}" + (", antithetic" if antithetic else "")
                    report(name, got, wanted, cost)
        start = time.process_time()
        cheap, _ = propagate(net, image)
        cost = (time.process_time() - start) / unit
        assert cheap is not None
        got = cheap.mutual_information_nats, cheap.probability
        report("variance propagation", got, wanted, cost)
        for skip in ("exact", "mean"):
            seed = torch.Generator().manual_seed(3)
            bank = bayes.bank(net, draws=MANY, generator=seed, skip=skip)
            used = enough_draws(bank, [image])
            start = time.process_time()
            got = maps(bank, image, used)
            cost = (time.process_time() - start) / unit
            report(f"auto: T={used}, skip {skip}", got, wanted, cost)


if __name__ == "__main__":
    main()
