"""What T posterior draws cost, as ratios to one deterministic pass of the same network.

Run: ``OMP_NUM_THREADS=1 python benchmarks/posterior.py --dim 2 [--peers PATH]``. Every row of a
block is timed in the same run, candidates in turn, CPU seconds of the process, medians of the
per-round ratios. The unit is the *plain* pass: up-sampling, concatenation and one convolution, as
U-Nets are usually written; the same network in Penumbra's own form is a row of its own.
``--peers`` is a folder with torch-uncertainty and bayesian-torch (``pip install --no-deps -t``).
"""

import argparse
import ctypes
import gc
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import peers as others
import torch
from torch import Tensor, nn
from torch.nn import functional

from penumbra import bayes
from penumbra.bayes.bank import Encoded, WeightBank
from penumbra.bayes.layer import pinned
from penumbra.bayes.propagate import Propagation
from penumbra.bayes.stream import window_maps
from penumbra.memory import keep_freed
from penumbra.model import Network
from penumbra.types import Output

CLASSES = 4
NETWORKS = {
    2: ("2-D 128^2, 32-64-128-256-512", (32, 64, 128, 256, 512), (128, 128)),
    3: ("3-D 64^3, 16-32-64-128", (16, 32, 64, 128), (64, 64, 64)),
}
Candidate = Callable[[], object]


class PlainUp(nn.Module):
    """An up-convolution as it is usually written."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        conv = functional.conv2d if x.dim() == 4 else functional.conv3d
        return conv(functional.interpolate(x, scale_factor=2.0), self.weight, self.bias, padding=1)


def build(dim: int, widths: tuple[int, ...], convs: int) -> Network:
    return Network(
        channels=1,
        classes=CLASSES,
        findings=0,
        dim=dim,
        widths=widths,
        gates=False,
        decoder_convs=convs,
    ).eval()


def plain(dim: int, widths: tuple[int, ...], convs: int) -> Network:
    """The same function in the usual form: no fusion, torch's own convolutions."""
    net = build(dim, widths, convs)
    for level in net.decoder.levels:
        level.up = PlainUp(level.up)
    for module in net.modules():
        if type(module).__name__ == "Conv3d" and type(module) is not nn.Conv3d:
            module.__class__ = nn.Conv3d
    return net


def banked(bank: bayes.Bank, x: Tensor, draws: int) -> Tensor:
    """The product's own path: moments, label maps and all."""
    return window_maps(bank, x, draws=draws).voxels.mutual_information_nats


def naive(net: Network, x: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """T full passes with fresh weights, as libraries do it."""
    moments = bayes.Moments()
    with bayes.sampling(net, generator=generator):
        for _ in range(draws):
            moments.update(net(x).segmentation.softmax(1))
    return moments.uncertainty().mutual_information_nats


def ratios(candidates: dict[str, Candidate], rounds: int) -> dict[str, float]:
    """Median over rounds of each candidate's CPU time over the first one's."""
    unit = next(iter(candidates))
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for k in range(rounds + 1):
        for name, run in candidates.items():
            # Cheap candidates are repeated so that a clock tick does not decide.
            repeats = 3 if name == unit else 1
            start = time.process_time()
            for _ in range(repeats):
                run()
            if k > 0:  # round 0 warms up
                seconds[name].append((time.process_time() - start) / repeats)
    return {
        name: statistics.median(a / b for a, b in zip(times, seconds[unit], strict=True))
        for name, times in seconds.items()
    }


def peak_of(run: Candidate) -> float:
    """Peak resident memory of a call above what was held before, in MiB, as Linux keeps it."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**10


def block(dim: int, convs: int, options: argparse.Namespace) -> None:
    title, widths, size = NETWORKS[dim]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, *size, generator=generator)
    unit, own = plain(dim, widths, convs), build(dim, widths, convs)
    variational, light = build(dim, widths, convs), build(dim, widths, convs)
    bayes.convert(variational, sigma0=0.3)
    bayes.convert(light, sigma0=0.3, scope="light")
    with torch.inference_mode():
        exact, shared = (
            bayes.bank(variational, draws=64, generator=generator, skip=skip)
            for skip in ("exact", "mean")
        )
        few = bayes.bank(light, draws=32, generator=generator)
    candidates: dict[str, Candidate] = {
        "one plain pass": lambda: unit(x).segmentation.softmax(1),
        "one pass, our form": lambda: own(x).segmentation.softmax(1),
        "variance propagation, no draws": lambda: banked(Propagation(variational), x, 99),
        "T=8 bank": lambda: banked(exact, x, 8),
        "T=8 bank, skip at mean": lambda: banked(shared, x, 8),
        "T=8 bank, light posterior": lambda: banked(few, x, 8),
    }
    if convs == 1:
        standard = plain(dim, widths, 2)
        candidates["one plain pass of two per level"] = lambda: standard(x).segmentation
    if options.compile:
        quick = Compiled(bayes.bank(light, draws=32, generator=generator))
        candidates["T=32 bank, light posterior, compiled"] = lambda: banked(quick, x, 32)
    if not options.quick:
        candidates["T=32 bank"] = lambda: banked(exact, x, 32)
        candidates["T=32 bank, skip at mean"] = lambda: banked(shared, x, 32)
        candidates["T=32 bank, light posterior"] = lambda: banked(few, x, 32)
    if options.peers:
        candidates["T=8 naive passes"] = lambda: naive(variational, x, 8, generator)
        for name, swap in others.PEERS.items():
            peer = plain(dim, widths, convs)
            swap(peer, PlainUp)
            candidates[f"T=8 {name}"] = lambda peer=peer: peer_passes(peer, x, 8)
    weights = sum(p.numel() for p in bayes.rho_parameters(variational))
    print(f"\n{title}, {convs} convolution(s) per level, {weights / 1e6:.2f} M Bayesian weights")
    with torch.inference_mode():
        for name, ratio in (ratios(candidates, options.rounds) if options.rounds else {}).items():
            print(f"  {name:45s} {ratio:7.2f}")
        if options.memory:
            memory(unit, exact, shared, x)


def peer_passes(net: Network, x: Tensor, draws: int) -> Tensor:
    moments = bayes.Moments()
    for _ in range(draws):
        moments.update(net(x).segmentation.softmax(1))
    return moments.uncertainty().mutual_information_nats


class Compiled:
    """A bank whose decoder torch has compiled, once for all draws."""

    coherent = True

    def __init__(self, bank: WeightBank) -> None:
        self.encode, self.bank = bank.encode, bank

        def decode(features: tuple[Tensor, ...], skips: object, draw: object) -> Tensor:
            with pinned(bank.layers, draw):
                return bank.network.decode(features, skips).segmentation

        self.run = torch.compile(decode)

    def __len__(self) -> int:
        return len(self.bank)

    def decode(self, encoded: Encoded, t: int) -> Output:
        return Output(self.run(encoded.features, encoded.skips, self.bank.draws[t]), None)


def memory(unit: Network, exact: WeightBank, shared: WeightBank, x: Tensor) -> None:
    if sys.platform == "linux":
        # Large blocks go back to the kernel at once, so that resident memory shows what is held.
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 1 << 16)
        libc.mallopt(-3, 1 << 16)
        libc.malloc_trim(0)
    runs: dict[str, Candidate] = {"one plain pass": lambda: unit(x).segmentation.softmax(1)}
    runs["T=8 bank"] = lambda: banked(exact, x, 8)
    runs["T=64 bank"] = lambda: banked(exact, x, 64)
    runs["T=8 bank, skip at mean"] = lambda: banked(shared, x, 8)
    first = None
    size = sum(k.numel() + (0 if b is None else b.numel()) for k, b in exact.draws[0]) * 4 / 2**20
    print(f"  memory: one draw's weights in the bank {size:.1f} MiB, held before the peaks below")
    for name, run in runs.items():
        peak = alone(run)
        first = first or max(peak, 1e-9)
        print(f"  memory: {name:37s} {peak:7.1f} MiB ({peak / first:.2f})")


def alone(run: Candidate) -> float:
    """Peak MiB in a child of this process: no row inherits what an earlier one kept."""
    mine, its = multiprocessing.get_context("fork").Pipe()

    def child() -> None:
        its.send(peak_of(run))

    job = multiprocessing.get_context("fork").Process(target=child)
    job.start()
    found = mine.recv()
    job.join()
    return float(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--quick", action="store_true", help="T=8 only")
    parser.add_argument("--peers", type=Path, help="folder with peer packages")
    parser.add_argument("--memory", action="store_true", help="peak memory; slows what follows")
    parser.add_argument("--rounds", type=int, default=3, help="of timing; 0: none")
    parser.add_argument("--compile", action="store_true", help="compiled, too (slow)")
    parser.add_argument("--convs", type=int, nargs="+", default=[2, 1], help="per decoder level")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed()  # as every prediction does; all candidates gain
    if arguments.peers:
        others.find(arguments.peers)
    for convs in arguments.convs:
        for dim in arguments.dim:
            block(dim, convs, arguments)


if __name__ == "__main__":
    main()
