"""How long should findings be trained? Three folds of the patients that are not for testing.

Run: ``OMP_NUM_THREADS=1 python benchmarks/findings_folds.py DATA --out FOLDER --steps 360``. The
network of ``chest-xray --size small`` from random weights, the task's loss alone, whole films;
``--network resnet10`` trains MONAI's in its place, ``--norm batch`` gives our encoder batch norm.
Prints the macro AUC of each fold at every quarter of the training. Test patients are never read.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets.resnet import ResNet
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from penumbra.augment import augment, to_display
from penumbra.config import Config, resolve
from penumbra.ground import Ground, prepare
from penumbra.model import Network
from penumbra.training.losses import findings_loss
from penumbra.training.start import standardize_decoder, standardize_findings

FOLDS, BATCH, FEWEST = 3, 32, 3
"""A finding counts in a fold with at least ``FEWEST`` films with and as many without it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", choices=("penumbra", "resnet10"), default="penumbra")
    parser.add_argument("--norm", choices=("group", "batch"), default="group")
    parser.add_argument("--steps", type=int, default=360)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    config = resolve("chest-xray", size="small")
    ground = prepare(config, chosen.data, chosen.out)
    members = ground.parts["train"] + ground.parts["val"]
    cases = [ground.store.cases[i] for i in members]
    films = torch.stack([torch.from_numpy(np.array(ground.store[i].image)) for i in members])
    names = ground.store.task.findings
    labels = torch.tensor([[case.findings.get(f, math.nan) for f in names] for case in cases])
    patients = np.unique([case.patient for case in cases])
    np.random.default_rng(7).shuffle(patients)
    fold_of = {patient: k % FOLDS for k, patient in enumerate(patients)}
    fold = np.array([fold_of[case.patient] for case in cases])
    curves = [
        train(config, ground, films.float(), labels, fold == k, chosen, chosen.seed * 10 + k)
        for k in range(FOLDS)
    ]
    for step, *found in zip(quarters(chosen.steps), *curves, strict=True):
        print(json.dumps({"step": step, "folds": found, "mean": round(float(np.mean(found)), 3)}))


def train(
    config: Config,
    ground: Ground,
    films: Tensor,
    labels: Tensor,
    held_out: np.ndarray,
    chosen: argparse.Namespace,
    draws: int,
) -> list[float]:
    """Macro AUC of the held-out films at every quarter of a training on the others."""

    def shown(images: Tensor) -> Tensor:
        return to_display(images, modality="xray", window_hu=config.data.window_hu)

    inside, outside = np.where(~held_out)[0], np.where(held_out)[0]
    logits, groups, network = build(config, ground, shown(films[inside[:128]]), chosen)
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-5)
    generator = torch.Generator().manual_seed(draws)
    curve = []
    for step in range(1, chosen.steps + 1):
        share = min(1, step / (0.05 * chosen.steps))
        share *= (1 + math.cos(math.pi * (step - 1) / chosen.steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = chosen.lr * group["scale"] * share
        batch = inside[torch.randint(len(inside), (BATCH,), generator=generator).numpy()]
        with torch.no_grad():
            images, _, _ = augment(
                films[batch],
                None,
                None,
                modality="xray",
                generator=generator,
                probability=config.train.augment,
                spacing_mm=ground.spacing_mm,
            )
        network.train()
        policy = config.data.uncertain
        loss = findings_loss(logits(shown(images)), labels[batch], uncertain=policy).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.train.clip_norm)
        optimizer.step()
        if step in quarters(chosen.steps):
            network.eval()
            with torch.no_grad():
                found = [logits(part) for part in shown(films[outside]).split(64)]
            curve.append(macro_auc(torch.cat(found), labels[outside]))
    return curve


def quarters(steps: int) -> list[int]:
    return [steps // 4 * k for k in range(1, 5)]


def build(
    config: Config, ground: Ground, images: Tensor, chosen: argparse.Namespace
) -> tuple[Callable[[Tensor], Tensor], list[dict[str, Any]], nn.Module]:
    """Images to logits, parameters with their rates, the module that holds them."""
    mean, std = (x.float() for x in ground.display_statistics(config))
    findings = len(ground.store.task.findings)
    if chosen.network == "resnet10":
        torch.manual_seed(chosen.seed)
        blocks, features = [1, 1, 1, 1], [64, 128, 256, 512]
        resnet = ResNet(
            "basic", blocks, features, spatial_dims=2, n_input_channels=1, num_classes=findings
        )
        shape = (1, -1, 1, 1)
        groups = [{"params": list(resnet.parameters()), "scale": 1.0}]
        return lambda x: resnet((x - mean.view(shape)) / std.view(shape)), groups, resnet
    widths = config.model.widths
    network = Network(
        channels=1, classes=0, findings=findings, dim=2, widths=widths, seed=chosen.seed
    )
    network.encoder.input_mean.copy_(mean)
    network.encoder.input_std.copy_(std)
    if chosen.norm == "batch":
        to_batch_norm(network.encoder)
    network.eval()
    standardize_decoder(network, images)
    network.train()
    standardize_findings(network, images.split(64))
    head = list(network.heads["findings"].parameters())
    rest = [p for p in network.parameters() if all(p is not each for each in head)]
    factor = config.train.findings_lr_factor
    groups = [{"params": rest, "scale": 1.0}, {"params": head, "scale": factor}]
    return lambda x: network(x).findings, groups, network


def to_batch_norm(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, nn.BatchNorm2d(child.num_channels))
        else:
            to_batch_norm(child)


def macro_auc(logits: Tensor, labels: Tensor) -> float:
    found = []
    for score, truth in zip(logits.T.numpy(), labels.T.numpy(), strict=True):
        known = ~np.isnan(truth)
        positive = truth[known] == 1
        if min(positive.sum(), (~positive).sum()) >= FEWEST:
            found.append(roc_auc_score(positive, score[known]))
    return round(float(np.mean(found)), 3)


if __name__ == "__main__":
    main()
