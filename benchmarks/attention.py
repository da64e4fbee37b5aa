"""What gates and the composite map cost at prediction, against the same network without them.

Run: ``OMP_NUM_THREADS=1 python benchmarks/attention.py``. A prediction is what the program does:
T posterior draws decoded, gates in each of them, one composite of the mean maps. Both candidates
run in every round, in turn first; the ratio is the median over rounds of the thread's CPU seconds.
Other load spreads even these through shared caches, so the ratio of both candidates' fastest rounds
stands beside it. Bars: below 5 % time, below 2 % parameters. ``--parts`` times each part of the
extra work instead, which other load disturbs less, at T = 1. ``--widths 32 64 128 256 512`` takes
the network of ``posterior.py`` and of the presets' size ``full``.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

import penumbra.model
from penumbra.attend.composite import composite
from penumbra.attend.gate import Gate
from penumbra.bayes import bank, convert
from penumbra.bayes.bank import Bank
from penumbra.bayes.stream import window_maps
from penumbra.model import Network

ROUNDS, BATCH, SIDE = 11, 4, 128
WIDTHS = (16, 32, 64, 128)
Candidate = tuple[Network, Bank]


def build(findings: int, gates: bool, widths: tuple[int, ...]) -> Network:
    return Network(
        channels=1,
        classes=0 if findings else 4,
        findings=findings,
        dim=2,
        widths=widths,
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


@torch.inference_mode()
def candidate(findings: int, gates: bool, draws: int, widths: tuple[int, ...]) -> Candidate:
    network = build(findings, gates, widths)
    convert(network)
    return network, bank(network, draws=draws, generator=torch.Generator().manual_seed(0))


def parts(image: torch.Tensor, widths: tuple[int, ...]) -> None:
    """Where the time goes: a clock around gates, pooling, product and composite."""
    spent: dict[str, float] = defaultdict(float)

    def clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            found = function(*args, **kwargs)
            spent[name] += time.thread_time() - start
            return found

        return run

    Gate.forward = clocked("gates", Gate.forward)  # type: ignore[method-assign]
    Network._pool = clocked("pooling", Network._pool)  # type: ignore[method-assign]
    penumbra.model._gated = clocked("product", penumbra.model._gated)
    globals()["composite"] = clocked("composite", composite)
    for findings in (0, 1, 14):
        ours, theirs = (candidate(findings, gates, 1, widths) for gates in (True, False))
        kept: dict[tuple[str, str], list[float]] = defaultdict(list)
        for k in range(1 + 2 * ROUNDS):
            order = {"gated": ours, "plain": theirs}
            for which in sorted(order, reverse=bool(k % 2)):
                spent.clear()
                whole = seconds(*order[which], image)
                for name, value in {**spent, "whole": whole}.items():
                    kept[which, name] += [1e3 * value] if k else []
        ms = {key: statistics.median(values) for key, values in kept.items()}
        plain, pooled = ms["plain", "whole"], ms.get(("plain", "pooling"), 0.0)
        shown = {name: ms[which, name] for which, name in ms if which == "gated"}
        extra = sum(v for name, v in shown.items() if name != "whole") - pooled
        text = ", ".join(f"{name} {v:.2f}" for name, v in shown.items() if name != "whole")
        print(
            f"{findings} findings: {text} ms (plain mean {pooled:.2f}); "
            f"{100 * extra / plain:+.1f} % of {plain:.1f} ms",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    asked = parser.parse_args()
    widths = tuple(asked.widths)
    shape = (BATCH, 1, SIDE, SIDE)
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    if asked.parts:
        parts(image, widths)
        return
    for findings, draws in ((0, 1), (0, 8), (1, 1), (1, 8), (14, 1), (14, 8)):
        candidates = [candidate(findings, gates, draws, widths) for gates in (True, False)]
        networks = [build(findings, gates, widths) for gates in (True, False)]
        counted = [sum(p.numel() for p in network.parameters()) for network in networks]
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
