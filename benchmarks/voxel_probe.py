"""What do frozen encoders know of single voxels? A logistic regression on all levels' features.

Run: ``OMP_NUM_THREADS=1 python benchmarks/voxel_probe.py lgg_multisite --out OUT``, where OUT is
the folder of ``why_pretraining.py``: each of its encoders, and a random one per seed, is read.
Fitted on 30,000 voxels of training patients with their labels, scored on as many of validation
patients.
"""

import argparse
from pathlib import Path

import torch
import why_pretraining
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from penumbra import checkpoint, pipeline
from penumbra.augment import to_display
from penumbra.data.patches import Patches
from penumbra.ground import Ground, prepare
from penumbra.pretrain.transfer import adapt
from penumbra.study.arms import ARMS

PATCHES, VOXELS = 192, 30_000
BASE = {**ARMS["supervised"].settings, **why_pretraining.STUDY}


def patches(ground: Ground, part: str) -> tuple[Tensor, Tensor]:
    """Images in display units and labels of some patches."""
    settings = why_pretraining.configured(BASE).data
    chosen = Patches(ground.store, ground.parts[part], settings=settings, seed=0)
    rows = [chosen[key] for key in range(PATCHES)]
    image = torch.stack([torch.as_tensor(row["image"]) for row in rows])
    labels = torch.stack([torch.as_tensor(row["segmentation"]) for row in rows])
    return to_display(image, modality="mri"), labels


@torch.no_grad()
def voxels(
    encoder: torch.nn.Module, image: Tensor, labels: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    levels = [
        functional.interpolate(level, size=image.shape[2:], mode="bilinear")
        for level in encoder(image)
    ]
    features = torch.cat(levels, 1).movedim(1, -1).flatten(0, 2)
    chance = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(features), generator=chance)[:VOXELS]
    index = index[labels.flatten()[index] >= 0]
    return features[index], labels.flatten()[index] > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    ground = prepare(why_pretraining.configured(BASE), chosen.data, chosen.out / "ground")
    sides = [patches(ground, part) for part in ("train", "val")]
    for seed in chosen.seeds:
        network = pipeline._network(why_pretraining.configured(BASE, seed=seed), ground).eval()
        paths = sorted(chosen.out.glob(f"*-s{seed}/pretrain/encoder.safetensors"))
        for path in (None, *paths):
            if path is not None:
                tensors = pipeline._without_prefix(checkpoint.read(path)[0])
                adapt(tensors, network.encoder)
            (x, y), (u, v) = (
                voxels(network.encoder, *side, seed=k) for k, side in enumerate(sides)
            )
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=0.1))
            score = probe.fit(x, y).decision_function(u)
            name = "random" if path is None else path.parent.parent.name
            area, precision = roc_auc_score(v, score), average_precision_score(v, score)
            print(f"{name}, seed {seed}: AUROC {area:.3f}, AP {precision:.3f}", flush=True)


if __name__ == "__main__":
    main()
