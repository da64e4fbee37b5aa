"""Peak memory and time of the maps of a large CT: 512 x 512 x 300, 14 classes, T=20 draws.

Run: ``OMP_NUM_THREADS=1 python benchmarks/volume_memory.py [--only N]``. The product's own
``map_case`` on a synthetic scan; no draw's volume exists. What the canvas holds depends neither on
the network's widths nor on which window runs, and all of it is written at the end, so ``--only``
may stop after a few windows.
"""

import argparse
import itertools
import resource
import time

import torch
from predict import CLASSES, synthetic

from penumbra import trained
from penumbra.bayes import bank
from penumbra.config import resolve
from penumbra.inference import maps
from penumbra.inference.windows import windows
from penumbra.types import Task


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--widths", type=int, nargs="+", default=(16, 32, 64))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--how", choices=("tile", "blend"), default="tile")
    parser.add_argument("--only", type=int, help="stop after so many windows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    overrides = {"data.dim": 3, "data.patch": [96, 96, 96], "data.spacing_mm": None}
    overrides |= {"model.widths": list(arguments.widths), "evaluate.windows": arguments.how}
    config = resolve("abdominal-ct", size="tiny", overrides=overrides)
    task = Task(
        modality="ct",
        channels=("ct",),
        classes=CLASSES,
        label_values={k: k for k in range(14)},
        regions={name: (k,) for k, name in enumerate(CLASSES) if k},
    )
    network = trained.build(config, task)
    trained.convert(network, config)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        drawn = bank(network.eval(), draws=arguments.draws, generator=generator)
    case = synthetic(tuple(arguments.shape))
    count = sum(1 for _ in windows(case, config, how=arguments.how))
    maps.windows = lambda *a, **k: itertools.islice(windows(*a, **k), arguments.only)
    before, start = peak_gib(), time.process_time()
    found = maps.map_case(network, drawn, case, task, config)
    assert found.voxels is not None
    seconds = time.process_time() - start
    ran = min(arguments.only or count, count)
    print(f"{tuple(arguments.shape)}, {len(CLASSES)} classes, T={arguments.draws}")
    print(f"{ran} of {count} windows ({arguments.how}), {seconds:.0f} CPU seconds")
    print(f"peak {peak_gib():.2f} GiB, {before:.2f} before: {peak_gib() - before:.2f} GiB beyond")


if __name__ == "__main__":
    main()
