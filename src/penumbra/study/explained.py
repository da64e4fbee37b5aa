"""Where a finished cell's maps point: attention, post-hoc methods, priors, on annotated cases."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penumbra.assess.explanations import choose_levels, compare
from penumbra.assess.pictures import pictures
from penumbra.data.store import Store
from penumbra.errors import DataError
from penumbra.evaluate.protocol import ALL, MEAN, CaseScores
from penumbra.ground import prepare
from penumbra.inference.explain import Explainer
from penumbra.study.borrowed import Borrowed, prepared
from penumbra.study.cell import Cell, model_of, told
from penumbra.study.job import Job
from penumbra.study.rows import columns, write_row
from penumbra.trained import Trained

ATTENTION: tuple[Explainer, ...] = ("attention", "modulated")
OTHERS: tuple[Explainer, ...] = (
    "grad_cam",
    "integrated_gradients",
    "smooth_grad",
    "occlusion",
    "centre_prior",
    "organ_prior",
)

TUNED = 6
"""Cases at most on which thresholds are tuned."""


@dataclass(frozen=True)
class Explained:
    """One cell's maps on held-out cases, of another cohort's where one is given.

    Thresholds and Grad-CAM's level are tuned on validation cases of the same cohort.
    """

    cell: Cell
    data: Path | None = None

    @property
    def name(self) -> str:
        return f"explain-{self.cell.name}"

    @property
    def row(self) -> Path:
        return self.cell.out / "explanations" / f"{self.cell.name}.json"

    def needs(self) -> list[Job]:
        return [self.cell]

    def run(self) -> None:
        model = model_of(self.cell)
        methods = (*ATTENTION, *OTHERS) if model.network.gated else OTHERS
        store, judged, tuning = self._held_out(model)
        row = told(self.cell) | {"cohort": (self.data or self.cell.data).name}
        try:
            levels = choose_levels(model, pictures(model, store, tuning), methods)
            cases = compare(model, store, judged, methods, tuning=tuning, levels=levels)
        except DataError as error:  # nobody has outlined anything that the model answers for
            write_row(self.row, {**row, "cases": {}, "note": str(error)})
            return
        table = columns([_flat(case) for case in cases])
        write_row(self.row, {**row, "levels": levels, "cases": table})

    def _held_out(self, model: Trained) -> tuple[Store, list[int], list[int]]:
        """A store, the cases that are judged, and those that thresholds are tuned on."""
        if self.data is None:
            ground = prepare(model.config, self.cell.data, self.cell.folder)
            return ground.store, ground.parts["test"], ground.parts["val"][:TUNED]
        other = prepared(self.data, model.config)
        store = Borrowed(other, model.task, model.config.data.window_hu)
        outlined = [i for i in other.indices("val") if other[i].mapped]
        judged = [i for i in range(len(store)) if store.cases[i].part != "val"]
        return store, judged, outlined[:TUNED]


def _flat(case: CaseScores) -> dict[str, Any]:
    return {"case": case.case, "patient": case.patient} | {
        metric if label in (ALL, MEAN) else f"{metric}_{label}": value
        for (metric, label), value in case.scores.items()
    }
