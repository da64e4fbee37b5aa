"""Peak memory of the maps of a large CT: 512 x 512 x 300, 14 classes, T=20 draws.

Run: ``OMP_NUM_THREADS=1 python benchmarks/volume_memory.py [--tiles N]``. Tiles stream into arrays
of the whole volume (mean probability in float16, five maps in float32); no draw's volume exists.
Memory does not depend on which tile runs, so ``--tiles`` may stop early; every page of the outputs
is touched first.
"""

import argparse
import itertools
import resource

import numpy as np
import torch

from penumbra import bayes
from penumbra.bayes.stream import tiles, window_maps
from penumbra.model import Network

SIZE, CLASSES, DRAWS = (512, 512, 300), 14, 20
WINDOW, HALO = (96, 96, 96), (16, 16, 16)
MAPS = ("epistemic", "aleatoric", "total", "entropy_nats", "mutual_information_nats")


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, help="stop after so many")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net = Network(
        channels=1, classes=CLASSES, findings=0, dim=3, widths=(16, 32, 64), gates=True
    ).eval()
    bayes.convert(net, sigma0=0.2)
    bank = bayes.bank(net, draws=DRAWS, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    volume = rng.random(SIZE, dtype=np.float32)
    before = peak_gib()
    probability = np.full((CLASSES, *SIZE), np.nan, np.float16)
    maps = {name: np.full(SIZE, np.nan, np.float32) for name in MAPS}
    counts = np.zeros((DRAWS, CLASSES), np.int64)
    every = list(tiles(SIZE, window=WINDOW, halo=HALO))
    with torch.inference_mode():
        for tile in itertools.islice(every, arguments.tiles):
            window = torch.from_numpy(volume[tile.window])[None, None]
            found = window_maps(bank, window, core=tile.core)
            assert found.voxels is not None
            assert found.counts is not None
            probability[(slice(None), *tile.place)] = found.voxels.probability[0].half().numpy()
            for name, array in maps.items():
                array[tile.place] = getattr(found.voxels, name)[0].numpy()
            counts += found.counts[:, 0].numpy()
    done = min(arguments.tiles or len(every), len(every))
    print(
        f"{done} of {len(every)} tiles; peak {peak_gib():.2f} GiB, {before:.2f} before the outputs"
    )
    print(f"beyond the input: {peak_gib() - before:.2f} GiB (bar: 8)")


if __name__ == "__main__":
    main()
