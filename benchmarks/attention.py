"""What gates and the composite map cost at prediction, against the same network without them.

Run: ``OMP_NUM_THREADS=1 python benchmarks/attention.py``. A prediction is what the program does:
T posterior draws decoded, gates in each of them, one composite of the mean maps. Both candidates
run in every round, in turn first; the ratio is the median over rounds of the thread's CPU seconds.
Other load spreads even these through shared caches, so the ratio of both candidates' fastest rounds
stands beside it. Bars: below 5 % time, below 2 % parameters.
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
Candidate = tuple[Network, Bank]


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


def rounds(ours: Candidate, theirs: Candidate, image: torch.Tensor) -> list[tuple[float, float]]:
    """Seconds of both in every round, after one that nobody counts."""
    found = []
    for k in range(1 + ROUNDS):
        if k % 2:
            mine, other = seconds(*ours, image), seconds(*theirs, image)
        else:
            other, mine = seconds(*theirs, image), seconds(*ours, image)
        found.append((mine, other))
    return found[1:]


def main() -> None:
    shape = (BATCH, 1, SIDE, SIDE)
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for findings, draws in ((0, 1), (0, 8), (1, 1), (1, 8), (14, 1), (14, 8)):
        counted, candidates = [], []
        for gates in (True, False):
            network = build(findings, gates)
            counted.append(sum(p.numel() for p in network.parameters()))
            convert(network)
            chance = torch.Generator().manual_seed(0)
            candidates.append((network, bank(network, draws=draws, generator=chance)))
        pairs = rounds(*candidates, image)
        spread = sorted(100 * (mine / other - 1) for mine, other in pairs)
        fastest = min(mine for mine, _ in pairs) / min(other for _, other in pairs)
        task = f"{findings} findings" if findings else "4 classes"
        print(
            f"{task:12s} T={draws}  time {statistics.median(spread):+.1f} % "
            f"(middle half {spread[ROUNDS // 4]:.1f} to {spread[-1 - ROUNDS // 4]:.1f}), "
            f"fastest rounds {100 * (fastest - 1):+.1f} %  "
            f"parameters +{100 * (counted[0] / counted[1] - 1):.2f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
