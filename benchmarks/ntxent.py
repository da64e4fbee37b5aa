"""NT-Xent forward and backward: time and memory against its matrix products and the plain form.

    OMP_NUM_THREADS=1 python benchmarks/ntxent.py [--batches 512 2048 8192] [--rounds 5] [--plain]

Time is CPU time of the process, implementations take turns, ratios are medians over rounds.
The floor is the three matrix products that no exact method avoids, and nothing else: for every pair
of row blocks the similarity and the two gradient products (upper triangle, memory reused).
Memory is what the peak of a fresh process grows by during the call.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from penumbra.pretrain.contrastive import nt_xent

DIM, TEMPERATURE = 128, 0.1
Step = Callable[[Tensor], None]


def ours(z: Tensor) -> None:
    nt_xent(*z.chunk(2), temperature=TEMPERATURE).backward()


def plain(z: Tensor) -> None:
    unit = functional.normalize(z, dim=1)
    logits = unit @ unit.T / TEMPERATURE
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    target = torch.arange(len(z)).roll(len(z) // 2)
    functional.cross_entropy(logits, target).backward()


def floor(z: Tensor, block: int = 512) -> None:
    rows, grad = z.detach(), torch.zeros_like(z)
    tile = torch.empty(block, block)
    parts = rows.split(block)
    for i, first in enumerate(parts):
        for j in range(i, len(parts)):
            torch.mm(first, parts[j].T, out=tile)
            grad[i * block : (i + 1) * block].addmm_(tile, parts[j])
            if i != j:
                grad[j * block : (j + 1) * block].addmm_(tile.T, first)


STEPS: dict[str, Step] = {"ours": ours, "plain": plain, "floor": floor}


def embeddings(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2 * batch, DIM, generator=generator).requires_grad_()


def seconds(step: Step, z: Tensor) -> float:
    z.grad = None
    start = time.process_time()
    step(z)
    return time.process_time() - start


def gradient_error(batch: int) -> float:
    """Largest error over the largest entry; the plain form in float64, row chunk by chunk."""
    z = embeddings(batch)
    ours(z)
    assert z.grad is not None
    exact = z.detach().double().requires_grad_()
    target = torch.arange(2 * batch).roll(batch)
    for rows in torch.arange(2 * batch).split(512):
        unit = functional.normalize(exact, dim=1)
        logits = unit[rows] @ unit.T / TEMPERATURE
        logits[torch.arange(len(rows)), rows] = -torch.inf
        (functional.cross_entropy(logits, target[rows], reduction="sum") / (2 * batch)).backward()
    assert exact.grad is not None
    return float((z.grad - exact.grad).abs().max() / exact.grad.abs().max())


def status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def extra_memory_mib(name: str, batch: int) -> float:
    """Measured in a process of its own, where nothing freed earlier is reused."""
    command = [sys.executable, __file__, "--memory-of", name, "--batches", str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_memory(name: str, batch: int) -> None:
    for step in STEPS.values():  # libraries and threads are loaded before the reading
        step(embeddings(32))
    z = embeddings(batch)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux)
    before = status_mib("VmRSS")
    STEPS[name](z)
    print(status_mib("VmHWM") - before)


def compare(batch: int, rounds: int, with_plain: bool) -> str:
    names = ["ours", "floor"] + (["plain"] if with_plain else [])
    z = embeddings(batch)
    for name in names:
        seconds(STEPS[name], z)
    times = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            times[name].append(seconds(STEPS[name], z))
    ratio = {
        name: statistics.median(t / f for t, f in zip(times[name], times["floor"], strict=True))
        for name in names
    }
    memory = {name: extra_memory_mib(name, batch) for name in names if name != "floor"}
    cells = [
        str(batch),
        f"{statistics.median(times['ours']):.3f}",
        f"{statistics.median(times['floor']):.3f}",
        f"{ratio['ours']:.2f}",
        f"{memory['ours']:.0f}",
        f"{ratio['plain']:.2f}" if with_plain else "-",
        f"{memory['plain']:.0f}" if with_plain else "-",
        f"{gradient_error(batch):.1e}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="also the plain form (3 GiB at 8192)")
    parser.add_argument("--memory-of", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print_memory(options.memory_of, options.batches[0])
        return
    print(
        "| batch | ours s | floor s | ours / floor | ours MiB | plain / floor | plain MiB | error |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for batch in options.batches:
        print(compare(batch, options.rounds, options.plain), flush=True)


if __name__ == "__main__":
    main()
