"""Does the trust score send the right patients to review? AURC against its rivals, with intervals.

    python benchmarks/triage.py --ours RUN... --members RUN... --data DATA [--draws 8]

``--ours``: finished runs (one per seed) whose trust score is judged; ``--members``: the runs whose
seed ensemble is the rival. Nothing is trained. What the trust score is (which of four scores) and
every limit are chosen anew on validation patients; the figures are of held-out patients.

Every score ranks the same patients by the same risk, 1 - mean Dice of our own segmentation, so that
rankings alone are compared; AURC is averaged over our seeds. Differences are paired: one draw of
the patients serves both scores. The ensemble is also shown by its own risk.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from penumbra import assess, trained
from penumbra.bayes.ensemble import Ensemble
from penumbra.evaluate.protocol import ALL, MEAN, CaseScores
from penumbra.evaluate.selective import spearman, weighted_aurc
from penumbra.evaluate.statistics import bootstrap, interval, resamples
from penumbra.ground import Ground, prepare
from penumbra.trained import Trained

TRUST, DISAGREEMENT = "uncertainty/trust", "uncertainty/disagreement"
RIVALS = {
    "mean softmax entropy, whole scan": "uncertainty/entropy/volume",
    "mean softmax entropy, region": "uncertainty/entropy/region",
    "disagreement of draws": DISAGREEMENT,
    "epistemic variance, region": "uncertainty/epistemic/region",
}
Scores = dict[str, CaseScores]


def scored(model: Trained, ground: Ground, draws: int | None) -> tuple[Scores, str]:
    """Held-out patients by name, and which score the validation patients chose."""
    if draws is not None:
        settings = model.config.evaluate.model_copy(update={"draws": draws})
        model = replace(model, config=model.config.model_copy(update={"evaluate": settings}))
    calibration = assess.calibrate(model, ground.store, ground.parts["val"])
    model = replace(model, calibration=calibration)
    judged = assess.judge(model, ground.store, ground.parts["test"], "test")
    return {each.case: each for each in judged.scores}, calibration.ranked_by


def ensemble_of(models: list[Trained]) -> Trained:
    network = Ensemble([model.network for model in models])
    for name in ("classes", "findings", "beta"):
        setattr(network, name, getattr(models[0].network, name))
    return replace(models[0], network=network.eval())  # type: ignore[arg-type]


def ground_of(run: Path, model: Trained, data: Path) -> Ground:
    """The run's cohort and split, prepared beside the run, which is left as it is."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config.yaml", "split.json"):
            shutil.copy(run / name, folder)
        return prepare(model.config, data, Path(folder))


def table(seeds: Iterable[Scores], names: list[str], key: tuple[str, str]) -> np.ndarray:
    return np.array([[seed[n].scores.get(key, np.nan) for n in names] for seed in seeds])


def compare(score: np.ndarray, rival: np.ndarray, risk: np.ndarray) -> tuple[Any, Any, Any]:
    """AURC of both and their difference; rows are seeds, columns patients."""
    n = risk.shape[1]
    weights = np.concatenate(list(resamples(np.arange(n), samples=4000, seed=0)))

    def mean_aurc(each: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.mean([weighted_aurc(s, r, w) for s, r in zip(each, risk, strict=True)], axis=0)

    (a, drawn_a), (b, drawn_b) = (
        (float(mean_aurc(each, np.ones((1, n)))[0]), mean_aurc(each, weights))
        for each in (score, rival)
    )
    return (
        interval(a, drawn_a, n=n),
        interval(b, drawn_b, n=n),
        interval(a - b, drawn_a - drawn_b, n=n),
    )


def shown(found: Any) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", type=Path, nargs="+", required=True)
    parser.add_argument("--members", type=Path, nargs="*", default=[])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int)
    asked = parser.parse_args()
    models = [trained.load(run) for run in asked.ours]
    ground = ground_of(asked.ours[0], models[0], asked.data)
    seeds = []
    for run, model in zip(asked.ours, models, strict=True):
        found, chosen = scored(model, ground, asked.draws)
        print(f"{run.name}: validation patients chose {chosen}", flush=True)
        seeds.append(found)
    names = [n for n in seeds[0] if not np.isnan(table(seeds, [n], ("dice", MEAN))).any()]
    risk = 1 - table(seeds, names, ("dice", MEAN))
    print(f"{len(seeds)} seed(s), {len(names)} held-out patients, mean Dice {1 - risk.mean():.3f}")
    print(f"AURC of the perfect order {compare(risk, risk, risk)[0].value:.3f}")
    trust = table(seeds, names, (TRUST, ALL))
    rivals = {title: table(seeds, names, (column, ALL)) for title, column in RIVALS.items()}
    if asked.members:
        both, _ = scored(ensemble_of([trained.load(run) for run in asked.members]), ground, None)
        spread = table([both], names, (DISAGREEMENT, ALL))
        rivals["disagreement of the seed ensemble"] = np.repeat(spread, len(seeds), axis=0)
        own = 1 - table([both], names, ("dice", MEAN))
        print(f"seed ensemble by its own risk: {shown(compare(spread, spread, own)[0])}")
    for title, rival in rivals.items():
        ours, theirs, apart = compare(trust, rival, risk)
        rank = np.mean([spearman(s, r) for s, r in zip(rival, risk, strict=True)])
        print(
            f"trust {shown(ours)} | {title} {shown(theirs)} | difference {shown(apart)} "
            f"| Spearman of the rival {rank:.2f}"
        )
    for metric in ("coverage/volume_credible", "coverage/volume_conformal", "expected_dice_error"):
        labels = {label for (m, label) in seeds[0][names[0]].scores if m == metric}
        for label in sorted(labels):
            values = table(seeds, names, (metric, label)).mean(axis=0)
            print(f"{metric} {label}: {shown(bootstrap(values, samples=4000))}")


if __name__ == "__main__":
    main()
