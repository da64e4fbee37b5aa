"""How many draws the maps of a trained model need, on held-out scans.

Run: ``OMP_NUM_THREADS=1 python benchmarks/draws.py RUN [--data DATA] [--cases N]``. Of each
validation patient some slices (slice-wise networks: evenly over the body; others: the window with
most tissue) go through 256 exact draws; the mutual-information maps of fewer draws of other banks,
of automatic stopping and of propagated variances are compared with theirs: over all voxels and
inside the body. Automatic stopping decides as in prediction, on the two windows with most tissue.
The cost is that of the draws alone, in passes of the network's mean weights over the same slices.
"""

import argparse
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from penumbra import trained
from penumbra.augment import to_display
from penumbra.bayes import Bank, Moments, bank, to_probabilities
from penumbra.bayes.bank import Skip
from penumbra.bayes.propagate import Propagation
from penumbra.bayes.stopping import MOST, STEP, enough_draws
from penumbra.data.preprocess import Prepared
from penumbra.ground import data_folder, prepare
from penumbra.inference.maps import _pilots
from penumbra.model import Network
from penumbra.trained import Trained

Row = tuple[float, float, float, int]
"""Correlation over all voxels and inside the body, passes, draws."""
MANY, FIXED = 256, (8, 16, 32, 48, 64)


@dataclass(frozen=True)
class Sample:
    """What is looked at of one patient; ``pilots`` decide on the number of draws."""

    name: str
    image: Tensor
    body: Tensor
    pilots: list[Tensor]


def sample_of(case: Prepared, model: Trained, slices: int) -> Sample:
    config = model.config
    windows = _pilots(case, config)
    pilots = [window.image for window in windows]
    body = torch.from_numpy(np.array(case.body))
    if config.data.dim == 3:
        first = windows[0]
        return Sample(case.id, first.image, body[first.place][None], pilots)
    shown = to_display(
        torch.from_numpy(np.array(case.image, dtype=np.float32))[None],
        modality=config.modality,
        window_hu=config.data.window_hu,
    )[0]
    filled = torch.nonzero(body.flatten(0, 1).any(0))[:, 0]
    at = filled[torch.linspace(0, len(filled) - 1, slices + 2).round().long()[1:-1]]
    return Sample(case.id, shown[..., at].movedim(-1, 0), body[..., at].movedim(-1, 0), pilots)


def trace(posterior: Bank, image: Tensor, draws: int) -> dict[int, tuple[Tensor, float]]:
    """The mutual-information map after every fourth draw, and the CPU seconds up to there."""
    found, moments = {}, Moments()
    start = time.process_time()
    encoded = posterior.encode(image)
    for t in range(draws):
        output = to_probabilities(posterior.decode(encoded, t))
        moments.update(output.segmentation)
        if (t + 1) % STEP == 0 or t + 1 == draws:
            seconds = time.process_time() - start
            found[t + 1] = moments.uncertainty().mutual_information_nats, seconds
    return found


def correlation(got: Tensor, wanted: Tensor, where: Tensor) -> float:
    return float(torch.stack([got[where], wanted[where]]).double().corrcoef()[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, help="another folder with the run's cohort")
    parser.add_argument("--cases", type=int, default=3)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--banks", type=int, default=1, help="per patient and estimator")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = trained.load(options.run)
    ground = prepare(model.config, options.data or data_folder(options.run, None), options.run)
    width = model.calibration.posterior_width
    print(
        f"{options.run.name}: {model.config.bayes.posterior}, width {width:g}, r in all / in body"
    )
    rows: dict[str, list[Row]] = defaultdict(list)
    with torch.inference_mode():
        for index in ground.parts["val"][: options.cases]:
            sample = sample_of(ground.store[index], model, options.slices)
            for name, row in judged(sample, model, options.banks):
                rows[name].append(row)
            show(rows)


def show(rows: dict[str, list[Row]]) -> None:
    print("| estimator | r, mean | least | r in the body, mean | least | draws | passes |")
    print("|---|---|---|---|---|---|---|")
    for name, each in rows.items():
        every, body, passes, draws = zip(*each, strict=True)
        figures = [statistics.mean(every), min(every), statistics.mean(body), min(body)]
        shown = " | ".join(f"{figure:.3f}" for figure in figures)
        print(
            f"| {name} | {shown} | {statistics.mean(draws):.0f} | {statistics.mean(passes):.1f} |"
        )


def drawn(network: Network, seed: int, *, draws: int, skip: Skip = "exact") -> Bank:
    generator = torch.Generator().manual_seed(seed)
    return bank(network, draws=draws, generator=generator, skip=skip)


def judged(sample: Sample, model: Trained, banks: int) -> list[tuple[str, Row]]:
    """Every estimator's correlations, its cost in passes, and its draws, bank by bank."""
    network, image = model.network, sample.image
    network(image)
    start = time.process_time()
    network(image).segmentation.softmax(1)
    unit = time.process_time() - start
    many = trace(drawn(network, 1, draws=MANY), image, MANY)[MANY][0]
    everywhere, found = torch.ones_like(sample.body), []

    def note(name: str, step: tuple[Tensor, float], draws: int) -> None:
        got, seconds = step
        rs = (correlation(got, many, where) for where in (everywhere, sample.body))
        found.append((name, (*rs, seconds / unit, draws)))

    for k in range(banks):
        for skip in ("exact", "mean"):
            few = drawn(network, 100 + k, draws=MOST, skip=skip)
            steps = trace(few, image, MOST)
            for draws in FIXED:
                note(f"T={draws}, skip {skip}", steps[draws], draws)
            if skip == "exact":
                used = enough_draws(few, sample.pilots)
                note("auto", steps[used], used)
    if model.config.bayes.posterior == "variational":
        cheap = Propagation(network)
        note("variance propagation", trace(cheap, image, len(cheap))[len(cheap)], 0)
    print(f"{sample.name}: {tuple(image.shape)}, one pass {unit:.2f} s", flush=True)
    return found


if __name__ == "__main__":
    main()
