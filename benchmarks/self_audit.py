"""Does each uncertainty mean what its name says? Phantoms know the answer.

Run: ``OMP_NUM_THREADS=1 python benchmarks/self_audit.py OUT [--seeds 3] [--only KEY]``. Every model
is variational, without gates, adversarial term and pre-training. On the same test patients:

* labels: trained on 10, 25, 50, 100 % of the patients -> epistemic should fall, aleatoric should
  not follow;
* readers: trained on labels of readers who disagree by 0, 0.5, 1, 2 (x 4 mm) -> aleatoric should
  rise, epistemic should not follow;
* scanner: the same anatomies seen by a scanner of no training case -> epistemic should rise.

Uncertainty is averaged over each patient's lesion and its surroundings, the same voxels for every
model. Values are averaged over seeds, then ranked within patients (``evaluate.audit.trend``).
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from penumbra import pipeline, trained
from penumbra.bayes import bank
from penumbra.bayes.temper import temper
from penumbra.config import Config, resolve
from penumbra.data.cohort import read_cohort
from penumbra.data.phantom import plan, write_phantom
from penumbra.data.phantom_files import write_mri
from penumbra.data.store import Store, build
from penumbra.evaluate.audit import trend
from penumbra.evaluate.segmentation import region_of_interest
from penumbra.evaluate.statistics import bootstrap
from penumbra.inference.maps import map_case

FRACTIONS = (0.1, 0.25, 0.5, 1.0)
READERS = (0.0, 0.5, 1.0, 2.0)
CASES, TEST, SHAPE, DRAWS = 64, 20, (48, 48, 10), 8
KINDS = ("epistemic", "aleatoric")
SETTINGS = {
    "pretrain.steps": 0,
    "data.patch": [48, 48],
    "model.widths": [8, 16, 32],
    "train.steps": 2000,
    "train.batch": 8,
    "train.validate_every": 500,
    "bayes.temper": [0.5, 1.0, 2.0],
    "adversarial.weight": 0.0,
    "attention.gates": False,
    "attention.weight": 0.0,
    "device": "cpu",
}


def keys(seeds: int) -> list[tuple[float, float, int]]:
    """(fraction, disagreement of readers, seed) of every model."""
    models = [(f, 0.5) for f in FRACTIONS] + [(1.0, a) for a in READERS if a != 0.5]
    return [(f, a, seed) for seed in range(seeds) for f, a in models]


def config_of(fraction: float, seed: int) -> Config:
    overrides = SETTINGS | {"data.fraction": fraction, "seed": seed, "data.split_seed": 0}
    return resolve("phantom-mri", overrides=overrides)


def cohort(out: Path, ambiguity: float) -> Path:
    folder = out / f"readers-{ambiguity:g}"
    if not folder.exists():
        write_phantom(
            folder,
            modality="mri",
            cases=CASES,
            seed=0,
            shape=SHAPE,
            ambiguity=ambiguity,
            shifted=False,
        )
    return folder


def tests(out: Path, *, shifted: bool) -> Store:
    """The same test anatomies, on the training scanners or on one that was never seen."""
    name = "shifted" if shifted else "familiar"
    folder = out / f"test-{name}"
    if not folder.exists():
        folder.mkdir(parents=True)
        plans = plan(CASES + TEST, seed=1, scanners=3, shifted=False, studies=False)[-TEST:]
        seen = [replace(p, part="test", scanner=None if shifted else p.scanner) for p in plans]
        write_mri(folder, seen, SHAPE, 0.5)
    config = config_of(1.0, 0)
    return build(read_cohort(folder, modality="mri"), config.data, out / f"store-{name}")


def measure(out: Path, fraction: float, ambiguity: float, seed: int) -> Path:
    """Train one model, and write every test patient's uncertainty in both scanners."""
    name = f"f{fraction:g}-a{ambiguity:g}-s{seed}"
    path = out / "values" / f"{name}.json"
    if path.exists():
        return path
    config = config_of(fraction, seed)
    run = out / "runs" / name
    pipeline.train(config, cohort(out, ambiguity), run)
    model = trained.load(run)
    found: dict[str, object] = {"width": model.calibration.posterior_width}
    found["tempering"] = model.calibration.tempering
    for shifted in (False, True):
        store = tests(out, shifted=shifted)
        found["shifted" if shifted else "familiar"] = values(model, store, config)
    temper(model.network, 1 / model.calibration.posterior_width)
    found["familiar, as trained"] = values(model, tests(out, shifted=False), config)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found))
    return path


def values(model: trained.Trained, store: Store, config: Config) -> dict[str, list[float]]:
    draws = bank(model.network, draws=DRAWS, generator=torch.Generator().manual_seed(0))
    seen: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for index in range(len(store.cases)):
        case = store[index]
        maps = map_case(model.network, draws, case, store.task, config)
        lesion = np.asarray(case.segmentation) > 0
        roi = region_of_interest(lesion, lesion, spacing_mm=case.spacing_mm)
        for kind in KINDS:
            seen[kind].append(float(getattr(maps.voxels, kind).numpy()[roi].mean()))
    return seen


def report(out: Path, seeds: int) -> None:
    def mean(fraction: float, ambiguity: float, kind: str, scanner: str) -> np.ndarray:
        paths = [out / "values" / f"f{fraction:g}-a{ambiguity:g}-s{s}.json" for s in range(seeds)]
        return np.mean([json.loads(p.read_text())[scanner][kind] for p in paths], axis=0)

    print(
        "| what changes | uncertainty | levels | mean over patients | rank correlation | verdict |"
    )
    print("|---|---|---|---|---|---|")
    for scanner in ("familiar", "familiar, as trained"):
        for what, levels, of in (
            ("labels", FRACTIONS, lambda level: (level, 0.5)),
            ("readers", READERS, lambda level: (1.0, level)),
        ):
            for kind in KINDS:
                table = np.stack([mean(*of(level), kind, scanner) for level in levels])
                direction = "falls" if what == "labels" else "rises"
                found = trend(levels, table, direction=direction)
                means = ", ".join(f"{x:.4f}" for x in table.mean(1))
                expected = (what == "labels") == (kind == "epistemic")
                verdict = f"{direction}: {found.verdict}" if expected else "(should not follow)"
                r = found.correlation
                print(
                    f"| {what}{scanner[8:]} | {kind} | {levels} | {means} "
                    f"| {r.value:.2f} ({r.low:.2f} to {r.high:.2f}) | {verdict} |"
                )
    for kind in KINDS:
        before, after = (mean(1.0, 0.5, kind, s) for s in ("familiar", "shifted"))
        r = bootstrap(list(after / before), samples=2000, seed=0)
        higher = int((after > before).sum())
        print(
            f"| unseen scanner | {kind} | familiar, shifted | {before.mean():.4f}, "
            f"{after.mean():.4f} | ratio {r.value:.2f} ({r.low:.2f} to {r.high:.2f}), "
            f"higher in {higher} of {len(after)} | |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, help="number of the one model to train")
    parser.add_argument("--report", action="store_true", help="print only")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    models = keys(arguments.seeds)
    if not arguments.report:
        for fraction, ambiguity, seed in (
            models if arguments.only is None else [models[arguments.only]]
        ):
            measure(arguments.out, fraction, ambiguity, seed)
    if arguments.report or arguments.only is None:
        report(arguments.out, arguments.seeds)


if __name__ == "__main__":
    main()
