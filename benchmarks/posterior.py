"""What T posterior draws cost, as ratios to one deterministic pass of the same network.

Run: ``OMP_NUM_THREADS=1 python benchmarks/posterior.py [--quick] [--peers PATH]``. Every row of a
block is timed in the same run, candidates in turn, CPU seconds of the process, medians of the
per-round ratios. The unit is the *plain* pass: up-sampling, concatenation and one convolution, as
U-Nets are usually written; the same network in Penumbra's own form is a row of its own.
``--peers`` is a folder with torch-uncertainty or bayesian-torch (``pip install --no-deps -t``).
"""

import argparse
import ctypes
import gc
import importlib
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from penumbra import bayes
from penumbra.bayes.bank import WeightBank
from penumbra.bayes.propagate import propagate
from penumbra.model import Network

CLASSES = 4
PEER_PRIOR = {
    "prior_mean": 0.0,
    "prior_variance": 1.0,
    "posterior_mu_init": 0.0,
    "posterior_rho_init": -3.0,
}
NETWORKS = {
    "2-D 128^2, 32-64-128-256-512": (2, (32, 64, 128, 256, 512), (128, 128)),
    "3-D 64^3, 16-32-64-128": (3, (16, 32, 64, 128), (64, 64, 64)),
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


def banked(bank: WeightBank, x: Tensor, draws: int) -> Tensor:
    moments = bayes.Moments()
    encoded = bank.encode(x)
    for t in range(draws):
        moments.update(bank.decode(encoded, t).segmentation.softmax(1))
    return moments.uncertainty().mutual_information_nats


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


@contextmanager
def watching() -> Iterator[list[float]]:
    """Peak resident memory above the start, in MiB, sampled every millisecond."""
    gc.collect()
    page = resource.getpagesize() / 2**20
    statm = Path("/proc/self/statm")

    def now() -> float:
        return int(statm.read_text().split()[1]) * page

    start, peak, stop = now(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.001):
            peak[0] = max(peak[0], now() - start)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.stack([a.flatten(), b.flatten()]).corrcoef()[0, 1])


def peer_layers(name: str, net: Network) -> bool:
    """Swap decoder and heads for a peer's layers; False if the peer is not there."""
    try:
        layers = importlib.import_module(name)
    except ImportError as error:
        print(f"  {name}: not importable here ({error}); row skipped")
        return False
    for part in (net.decoder, net.heads):
        for parent in list(part.modules()):
            for key, child in list(parent.named_children()):
                if isinstance(child, (nn.Conv2d, nn.Conv3d)):
                    kind = f"Conv{len(child.kernel_size)}dReparameterization"
                    peer = getattr(layers, kind)(
                        child.in_channels,
                        child.out_channels,
                        child.kernel_size[0],
                        padding=child.padding[0],
                        bias=child.bias is not None,
                        **PEER_PRIOR,
                    )
                    setattr(parent, key, First(peer, up=False))
                elif isinstance(child, PlainUp):
                    out, fan_in = child.weight.shape[:2]
                    kind = f"Conv{child.weight.dim() - 2}dReparameterization"
                    peer = getattr(layers, kind)(fan_in, out, 3, padding=1, **PEER_PRIOR)
                    setattr(parent, key, First(peer, up=True))
    return True


class First(nn.Module):
    """A peer's layer returns (output, KL); keep the output."""

    def __init__(self, layer: nn.Module, *, up: bool) -> None:
        super().__init__()
        self.layer, self.up = layer, up

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = functional.interpolate(x, scale_factor=2.0)
        return self.layer(x)[0]


def peer_passes(net: Network, x: Tensor, draws: int) -> Tensor:
    moments = bayes.Moments()
    for _ in range(draws):
        moments.update(net(x).segmentation.softmax(1))
    return moments.uncertainty().mutual_information_nats


def block(title: str, convs: int, options: argparse.Namespace) -> None:
    quick = options.quick
    dim, widths, size = NETWORKS[title]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, *size, generator=generator)
    unit, own, variational = (
        plain(dim, widths, convs),
        build(dim, widths, convs),
        build(dim, widths, convs),
    )
    bayes.convert(variational, sigma0=0.3)
    most = 8 if quick else 32
    exact, shared = (
        bayes.bank(variational, draws=64, generator=generator, skip=skip)
        for skip in ("exact", "mean")
    )
    compiled = torch.compile(own) if options.compile else None
    candidates: dict[str, Candidate] = {
        "one plain pass": lambda: unit(x).segmentation.softmax(1),
        "one pass, our form": lambda: own(x).segmentation.softmax(1),
        "variance propagation, no draws": lambda: propagate(variational, x),
        "T=8 bank": lambda: banked(exact, x, 8),
        "T=8 bank, skip at mean": lambda: banked(shared, x, 8),
        "T=8 naive passes": lambda: naive(variational, x, 8, generator),
    }
    if compiled is not None:
        candidates["one pass, our form, compiled"] = lambda: compiled(x)
    if not quick:
        candidates[f"T={most} bank"] = lambda: banked(exact, x, most)
        candidates[f"T={most} bank, skip at mean"] = lambda: banked(shared, x, most)
    if options.peers:
        peer = plain(dim, widths, convs)
        if peer_layers("bayesian_torch.layers", peer):
            candidates["T=8 bayesian-torch, reparameterization"] = lambda: peer_passes(peer, x, 8)
    weights = sum(p.numel() for p in bayes.rho_parameters(variational))
    print(f"\n{title}, {convs} convolution(s) per level, {weights / 1e6:.2f} M Bayesian weights")
    with torch.inference_mode():
        for name, ratio in ratios(candidates, options.rounds).items():
            print(f"  {name:45s} {ratio:7.2f}")
        if options.memory:
            memory(unit, exact, shared, x)
        fidelity(variational, exact, shared, x, quick=quick)


def memory(unit: Network, exact: WeightBank, shared: WeightBank, x: Tensor) -> None:
    if sys.platform == "linux":
        # Large blocks go back to the kernel at once, so that resident memory shows what is held.
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 16)
        libc.malloc_trim(0)
    runs: dict[str, Candidate] = {"one plain pass": lambda: unit(x).segmentation.softmax(1)}
    runs["T=8 bank"] = lambda: banked(exact, x, 8)
    runs["T=64 bank"] = lambda: banked(exact, x, 64)
    runs["T=8 bank, skip at mean"] = lambda: banked(shared, x, 8)
    first = None
    for name, run in runs.items():
        with watching() as peak:
            run()
        first = first or max(peak[0], 1e-9)
        print(f"  memory: {name:37s} {peak[0]:7.1f} MiB ({peak[0] / first:.2f})")


def fidelity(
    net: Network, exact: WeightBank, shared: WeightBank, x: Tensor, *, quick: bool
) -> None:
    """Mutual-information maps against many exact draws (another bank), random weights."""
    many = 64 if quick else 128
    reference = bayes.bank(net, draws=many, generator=torch.Generator().manual_seed(9))
    wanted = banked(reference, x, many)
    maps = {
        "T=32 bank": banked(exact, x, 32),
        "T=32 bank, skip at mean": banked(shared, x, 32),
        "variance propagation": propagate(net, x)[0].mutual_information_nats,
    }
    for name, got in maps.items():
        scale = float(got.mean() / wanted.mean())
        print(f"  map vs T={many}: {name:33s} r={correlation(got, wanted):.3f} scale={scale:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2-D and T=8 only")
    parser.add_argument("--peers", type=Path, help="folder with peer packages")
    parser.add_argument("--memory", action="store_true", help="peak memory; slows what follows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="time torch.compile too (slow)")
    parser.add_argument("--convs", type=int, nargs="+", default=[2, 1], help="per decoder level")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peers:
        sys.path.append(str(arguments.peers))
    else:
        print("peers: no --peers folder given; their rows are skipped")
    for convs in arguments.convs:
        for title in list(NETWORKS)[: 1 if arguments.quick else 2]:
            block(title, convs, arguments)


if __name__ == "__main__":
    main()
