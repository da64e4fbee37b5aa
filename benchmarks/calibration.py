"""Which posterior is best calibrated on real scans? One warm start and budget, several posteriors.

Run: ``OMP_NUM_THREADS=1 python benchmarks/calibration.py STUDY OUT [--report]``. STUDY is a folder
of ``penumbra study ... --arms supervised``. From each seed's deterministic network every posterior
is fine-tuned for the same 100 steps (the deterministic one too), tempered and calibrated on
validation patients, and scored on test patients as they are and under a shift: one family of the
severity suite per case, in turn, at severity ``SEVERITY``. The levers are variational posteriors
with one setting changed. Laplace is fitted around the fine-tuned deterministic network; the
ensembles are the seeds' deterministic and variational networks.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penumbra import assess, pipeline, trained
from penumbra.augment import families, shift
from penumbra.bayes import laplace
from penumbra.bayes.ensemble import Ensemble
from penumbra.config import Config
from penumbra.data.patches import Patches
from penumbra.data.preprocess import Prepared
from penumbra.data.store import Store
from penumbra.evaluate.selective import spearman, weighted_aurc
from penumbra.ground import Ground, data_folder, prepare
from penumbra.model import Network
from penumbra.study.results import Group, Measure, gain, summary
from penumbra.trained import Trained
from penumbra.training.loop import fit
from penumbra.training.supervised import Population, Supervised

ARMS: dict[str, dict[str, Any]] = {
    "deterministic": {"posterior": "none"},
    "mc-dropout": {"posterior": "dropout"},
    "variational": {"posterior": "variational"},
    "cold": {"posterior": "variational", "kl": 0.01},
    "wide-start": {"posterior": "variational", "sigma0": 1.0},
    "far-travel": {"posterior": "variational", "rho_travel": 4.0},
    "light": {"posterior": "variational", "scope": "light"},
    "low-rank": {"posterior": "variational", "spread_rank": 2},
}
AFTERWARDS = ("laplace", "ensemble", "variational-ensemble")
STEPS, LR, DRAWS = 100, 5e-4, 8
WIDTHS = (0.25, 1.0, 4.0)
COLUMNS = ("dice", "ece", "ece_scaled", "nll", "nll_scaled", "brier", "brier_scaled")
SEVERITY = 4


class ShiftedStore:
    """The cases of a store, each under one family of the suite, in turn."""

    def __init__(self, store: Store, config: Config) -> None:
        self.store, self.config = store, config
        self.task, self.cases = store.task, store.cases

    def __getitem__(self, index: int) -> Prepared:
        case, modality = self.store[index], self.config.modality
        names = families(modality)
        slices = torch.from_numpy(np.array(case.image, dtype=np.float32)).movedim(-1, 0)
        body = torch.from_numpy(np.array(case.body)).movedim(-1, 0)
        shown = shift(
            slices,
            family=names[index % len(names)],
            severity=SEVERITY,
            modality=modality,
            generator=torch.Generator().manual_seed(index),
            body=body,
            spacing_mm=case.spacing_mm[:2],
        )
        return replace(case, image=shown.movedim(0, -1).numpy())


def configured(config: Config, arm: dict[str, Any]) -> Config:
    parts = {
        "bayes": {"warm_start": 0.0, "temper": WIDTHS} | arm,
        "train": {"steps": STEPS, "lr": LR, "validate_every": 0, "checkpoint_every": STEPS},
        "evaluate": {"draws": DRAWS, "attack_cases": 0},
        "adversarial": {"weight": 0.0},
        "attention": {"weight": 0.0, "clinical": 0.0, "anatomy": 0.0},
    }
    changed = {n: getattr(config, n).model_copy(update=values) for n, values in parts.items()}
    return config.model_copy(update=changed)


def tuned(start: Trained, ground: Ground, config: Config, folder: Path) -> Network:
    """The network after the fine-tuning of one posterior."""
    network = trained.build(config, ground.store.task)
    missing, unknown = network.load_state_dict(start.network.state_dict(), strict=False)
    assert not unknown
    assert all("spread" in name for name in missing)
    labelled = list(ground.parts["train"])
    population = Population(
        images=sum(ground.images(i) for i in labelled),
        voxels=int(np.prod(config.data.patch)),
        spacing_mm=ground.spacing_mm,
    )
    stage = Supervised(network, config, population)
    patches = Patches(ground.store, labelled, settings=config.data, seed=config.seed)
    fit(
        stage,
        patches,
        pipeline._schedule(config, None),
        folder=folder,
        device=torch.device("cpu"),
        validate=None,
    )
    return network.eval()


def scored(network: torch.nn.Module, config: Config, ground: Ground) -> dict[str, Any]:
    """What the test cases score once width, temperature and intervals are fitted on validation."""
    model = Trained(network, ground.store.task, config)  # type: ignore[arg-type]
    width, table = assess.temper(model, ground.store, ground.parts["val"])
    model = replace(model, calibration=assess.calibrate(model, ground.store, ground.parts["val"]))
    shifted = ShiftedStore(ground.store, config)
    stores = {"cases": ground.store, "shifted": shifted}
    return {
        "width": width,
        "tempering": table,
        "temperature": model.calibration.temperature,
        "split_hash": "one",
    } | {
        name: assess.judge(model, store, ground.parts["test"], "test").table("test")  # type: ignore[arg-type]
        for name, store in stores.items()
    }


def run(study: Path, out: Path, seeds: Sequence[int]) -> None:
    networks: dict[str, list[Network]] = {"deterministic": [], "variational": []}
    for seed in seeds:
        cell = study / "cells" / f"supervised@1-s{seed}"
        start = trained.load(cell)
        ground = prepare(start.config, data_folder(cell, None), cell)
        for arm, settings in ARMS.items():
            config = configured(start.config, settings)
            path = out / f"{arm}-s{seed}.json"
            if path.exists() and arm not in networks:
                continue
            network = tuned(start, ground, config, out / "work" / f"{arm}-s{seed}")
            if arm in networks:
                networks[arm].append(network)
            if arm == "deterministic":
                _keep(out / f"laplace-s{seed}.json", _laplace, network, start, ground)
            _keep(path, scored, network, config, ground)
    for arm, name in (("deterministic", "ensemble"), ("variational", "variational-ensemble")):
        members = networks[arm]
        ensemble = Ensemble(members).eval()
        ensemble.classes, ensemble.findings = members[0].classes, members[0].findings
        config = configured(start.config, ARMS[arm])
        _keep(out / f"{name}-s0.json", scored, ensemble, config, ground)


def _laplace(network: Network, start: Trained, ground: Ground) -> dict[str, Any]:
    config = configured(start.config, {"posterior": "laplace"})
    copy = trained.build(config, ground.store.task)
    copy.load_state_dict(network.state_dict())
    laplace.convert(copy.eval())
    patches = Patches(
        ground.store, list(ground.parts["train"]), settings=config.data, seed=config.seed
    )
    laplace.fit(copy, pipeline._images(patches, config))
    return scored(copy, config, ground)


def _keep(path: Path, compute: Callable[..., dict[str, Any]], *arguments: Any) -> None:
    if not path.exists():
        path.write_text(json.dumps(compute(*arguments)))
        print(f"wrote {path}", flush=True)


def report(out: Path) -> None:
    for what in ("cases", "shifted"):
        groups = {}
        for name in [*ARMS, *AFTERWARDS]:
            rows = [json.loads(p.read_text()) for p in sorted(out.glob(f"{name}-s*.json"))]
            if rows:
                chosen = tuple(row | {"cases": row[what]} for row in rows)
                groups[name] = Group(name, 1.0, chosen)
        print("\n" + ("test patients" if what == "cases" else f"shifted, severity {SEVERITY}"))
        table(groups)


def table(groups: dict[str, Group]) -> None:
    print(f"| posterior | seeds | {' | '.join(COLUMNS)} | AURC | Spearman | widths |")
    print("|---" * (len(COLUMNS) + 5) + "|")
    for name, group in groups.items():
        cells = []
        for column in COLUMNS:
            x = summary(group, Measure(column, lower_is_better=column != "dice"))
            cells.append(f"{x.value:.3f} ({x.low:.3f} to {x.high:.3f})")
        ranks = [_ranking(row["cases"]) for row in group.rows]
        cells += [f"{np.mean([r[k] for r in ranks]):.3f}" for k in (0, 1)]
        widths = ", ".join(f"{row['width']:g}" for row in group.rows)
        print(f"| {name} | {len(group.rows)} | " + " | ".join(cells) + f" | {widths} |")
    print("\n| ECE under deterministic, scaled | raw | scaled |\n|---|---|---|")
    for name, group in groups.items():
        if name == "deterministic":
            continue
        cells = []
        for mine in ("ece", "ece_scaled"):
            change, p = gain(
                group,
                groups["deterministic"],
                Measure(mine, lower_is_better=True),
                against=Measure("ece_scaled", lower_is_better=True),
            )
            cells.append(
                f"{change.value:+.1%} ({change.low:+.1%} to {change.high:+.1%}), p {p:.3f}"
            )
        print(f"| {name} | " + " | ".join(cells) + " |")


def _ranking(cases: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """AURC and Spearman of a case's uncertainty against 1 - Dice.

    Ranked by disagreement between draws, or by entropy where there is one draw.
    """
    for column in ("uncertainty/disagreement", "uncertainty/entropy/region"):
        if column in cases[0]:
            break
    pairs = np.array([(c[column], 1 - c["dice"]) for c in cases], dtype=float)
    pairs = pairs[~np.isnan(pairs).any(1)]
    weights = np.ones((1, len(pairs)))
    return (
        float(np.squeeze(weighted_aurc(pairs[:, 0], pairs[:, 1], weights))),
        spearman(pairs[:, 0], pairs[:, 1]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="print only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        run(arguments.study, arguments.out, arguments.seeds)
    report(arguments.out)


if __name__ == "__main__":
    main()
