"""How long should findings be trained? Three folds of the patients that are not for testing.

Run: ``OMP_NUM_THREADS=1 python benchmarks/findings_folds.py DATA --out FOLDER --steps 360``. The
network of ``chest-xray --size small`` from random weights, the task's loss alone, whole films;
``--network resnet10`` trains MONAI's in its place, ``--norm batch`` gives our encoder batch norm,
``--pretrain STEPS`` starts from an encoder pre-trained on the fold's own training films, which then
learns at ``--pace`` times the rate. ``--members M`` trains M networks of different seeds and scores
the mean of their logits. Prints the macro AUC of each fold at every quarter of the training, and of
the members together at the end. Test patients are never read.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets.resnet import ResNet
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from penumbra import checkpoint, pipeline
from penumbra.augment import augment, to_display
from penumbra.config import Config, resolve
from penumbra.ground import Ground, prepare
from penumbra.model import Network
from penumbra.pretrain.transfer import adapt
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
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--pretrain", type=int, default=0)
    parser.add_argument("--pace", type=float, default=1.0)
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
    together: dict[int, list[Tensor]] = {k: [] for k in range(FOLDS)}
    for seed in range(chosen.seed, chosen.seed + chosen.members):
        curves = []
        for k in range(FOLDS):
            curve, logits = train(config, ground, films.float(), labels, fold == k, chosen, seed, k)
            curves.append(curve)
            together[k].append(logits)
        for step, *found in zip(quarters(chosen.steps), *curves, strict=True):
            row = {"seed": seed, "step": step, "folds": found}
            print(json.dumps(row | {"mean": round(float(np.mean(found)), 3)}), flush=True)
    if chosen.members > 1:
        found = [
            macro_auc(torch.stack(each).mean(0), labels[torch.from_numpy(fold == k)])
            for k, each in together.items()
        ]
        row = {"members": chosen.members, "folds": found}
        print(json.dumps(row | {"mean": round(float(np.mean(found)), 3)}))


def train(
    config: Config,
    ground: Ground,
    films: Tensor,
    labels: Tensor,
    held_out: np.ndarray,
    chosen: argparse.Namespace,
    seed: int,
    which: int,
) -> tuple[list[float], Tensor]:
    """Macro AUC of the held-out films at every quarter of a training on the others; last logits."""

    def shown(images: Tensor) -> Tensor:
        return to_display(images, modality="xray", window_hu=config.data.window_hu)

    inside, outside = np.where(~held_out)[0], np.where(held_out)[0]
    encoder = pretrained(ground, inside, chosen, seed, which)
    logits, groups, network = build(
        config, ground, shown(films[inside[:128]]), chosen, seed, encoder
    )
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-5)
    generator = torch.Generator().manual_seed(seed * 10 + which)
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
    return curve, torch.cat(found)


def pretrained(
    ground: Ground, inside: np.ndarray, chosen: argparse.Namespace, seed: int, which: int
) -> Path | None:
    """An encoder of the fold's training films, without their labels."""
    if not chosen.pretrain:
        return None
    overrides = {"seed": seed, "pretrain.steps": chosen.pretrain, "train.validate_every": 0}
    settings = resolve("chest-xray", size="small", overrides=overrides)
    members = ground.parts["train"] + ground.parts["val"]
    parts = {**ground.parts, "train": [members[i] for i in inside]}
    folder = chosen.out / f"encoder-{chosen.pretrain}-s{seed}-f{which}"
    path = folder / "pretrain" / "encoder.safetensors"
    if not path.exists():
        pipeline._pretrain(settings, replace(ground, parts=parts), folder, None)
    return path


def quarters(steps: int) -> list[int]:
    return [steps // 4 * k for k in range(1, 5)]


def build(
    config: Config,
    ground: Ground,
    images: Tensor,
    chosen: argparse.Namespace,
    seed: int,
    encoder: Path | None,
) -> tuple[Callable[[Tensor], Tensor], list[dict[str, Any]], nn.Module]:
    """Images to logits, parameters with their rates, the module that holds them."""
    mean, std = (x.float() for x in ground.display_statistics(config))
    findings = len(ground.store.task.findings)
    if chosen.network == "resnet10":
        torch.manual_seed(seed)
        blocks, features = [1, 1, 1, 1], [64, 128, 256, 512]
        resnet = ResNet(
            "basic", blocks, features, spatial_dims=2, n_input_channels=1, num_classes=findings
        )
        shape = (1, -1, 1, 1)
        groups = [{"params": list(resnet.parameters()), "scale": 1.0}]
        return lambda x: resnet((x - mean.view(shape)) / std.view(shape)), groups, resnet
    widths = config.model.widths
    network = Network(channels=1, classes=0, findings=findings, dim=2, widths=widths, seed=seed)
    network.encoder.input_mean.copy_(mean)
    network.encoder.input_std.copy_(std)
    if chosen.norm == "batch":
        to_batch_norm(network.encoder)
    if encoder is not None:
        adapt(pipeline._without_prefix(checkpoint.read(encoder)[0]), network.encoder)
    network.eval()
    standardize_decoder(network, images)
    network.train()
    standardize_findings(network, images.split(64))
    head = list(network.heads["findings"].parameters())
    first = list(network.encoder.parameters())
    known = {id(p) for p in head + first}
    rest = [p for p in network.parameters() if id(p) not in known]
    groups = [
        {"params": first, "scale": chosen.pace},
        {"params": rest, "scale": 1.0},
        {"params": head, "scale": config.train.findings_lr_factor},
    ]
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
