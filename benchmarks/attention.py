"""What gates and the composite map cost at prediction, against the same network without them.

Run: ``OMP_NUM_THREADS=1 python benchmarks/attention.py``. A prediction is what the program does:
T posterior draws decoded, gates in each of them, one composite of the mean maps. Both candidates
run in every round, in turn first; the ratio is the median over rounds of the thread's CPU seconds,
so that other load disturbs little. Bars: below 5 % time, below 2 % parameters.
"""

import statistics
import time

import torch

from penumbra.attend.composite import composite
from penumbra.bayes import bank, convert
from penumbra.bayes.bank import Bank
from penumbra.bayes.stream import window_maps
from penumbra.model import Network

ROUNDS, BATCH, SIDE = 11, 4, 128


def build(findings: int, gates: bool) -> Network:
    return Network(
        channels=1,
        classes=0 if findings else 4,
        findings=findings,
        dim=2,
        widths=(16, 32, 64, 128),
        gates=gates,
    ).eval()


@torch.inference_mode()
def seconds(network: Network, posterior: Bank, image: torch.Tensor) -> float:
    start = time.thread_time()
    maps = window_maps(posterior, image, draws=len(posterior))
    if maps.attention:
        composite(maps.attention, network.beta, image.shape[2:])
    return time.thread_time() - start


def extra(
    ours: list[Network | Bank], theirs: list[Network | Bank], image: torch.Tensor, *, flip: bool
) -> float:
    """Percent by which our prediction takes longer, in one round."""
    turns = (theirs, ours) if flip else (ours, theirs)
    times = [seconds(*each, image) for each in turns]
    mine, other = times[::-1] if flip else times
    return 100 * (mine / other - 1)


def main() -> None:
    shape = (BATCH, 1, SIDE, SIDE)
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for findings, draws in ((0, 1), (0, 8), (1, 1), (1, 8), (14, 1), (14, 8)):
        pairs = []
        for gates in (True, False):
            network = build(findings, gates)
            counted = sum(p.numel() for p in network.parameters())
            convert(network)
            chance = torch.Generator().manual_seed(0)
            pairs.append((counted, network, bank(network, draws=draws, generator=chance)))
        (gated, *ours), (plain, *theirs) = pairs
        seconds(*ours, image), seconds(*theirs, image)
        spread = sorted(extra(ours, theirs, image, flip=bool(k % 2)) for k in range(ROUNDS))
        task = f"{findings} findings" if findings else "4 classes"
        print(
            f"{task:12s} T={draws}  time +{statistics.median(spread):.1f} % "
            f"(middle half {spread[ROUNDS // 4]:.1f} to {spread[-1 - ROUNDS // 4]:.1f})  "
            f"parameters +{100 * (gated / plain - 1):.2f} %"
        )


if __name__ == "__main__":
    main()
