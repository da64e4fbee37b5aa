"""Another cohort as a model of this one sees it: its channels, its classes, its display units."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from penumbra.augment import to_display
from penumbra.config import Config
from penumbra.data.cohort import read_cohort
from penumbra.data.preprocess import Prepared
from penumbra.data.store import Store, build
from penumbra.errors import DataError
from penumbra.files import cache_folder
from penumbra.types import IGNORE, Modality, Task

COUNTERPARTS = {"Effusion": "Pleural Effusion", "Infiltration": "Lung Opacity"}
"""A finding of the NIH set -> what CheXpert calls it, or comes closest to it."""


def prepared(data: Path, config: Config) -> Store:
    """A cohort as this configuration prepares it; a CT model's MR (``..._mr``) stays MR."""
    modality: Modality = "mri" if "_mr" in data.name.lower() else config.modality
    cohort = read_cohort(data, modality=modality)
    return build(cohort, config.data, cache_folder() / "store")


class Borrowed(Store):
    """A store whose cases are renamed and rescaled on the way out.

    Channels are matched by name (a cohort's only channel answers for the model's only one); one
    that is missing is empty, as where it was not acquired. Structures and findings are matched by
    name; a voxel of a structure that the model does not know is background there, and findings
    that the cohort does not state are NaN. Masks of findings follow their finding.

    Attributes:
        names: the cohort's findings that the model knows -> what the model calls them.

    Raises:
        DataError: the two have no channel, or nothing to judge, in common.
    """

    def __init__(self, store: Store, task: Task, window_hu: tuple[float, float]) -> None:
        shared = {r: members for r, members in task.regions.items() if r in store.task.regions}
        self.names = {
            name: finding
            for finding in task.findings
            for name in (finding, COUNTERPARTS.get(finding))
            if name in store.task.findings
        }
        if not shared and not self.names:
            raise DataError(
                f"no structure or finding in common: the model knows "
                f"{', '.join((*task.regions, *task.findings))}, the cohort "
                f"{', '.join((*store.task.regions, *store.task.findings))}"
            )
        self.__dict__.update(store.__dict__)
        self.source, self.known, self.window_hu = store, task, window_hu
        self.task = replace(task, regions=shared)
        self.channels = _matched(store.task.channels, task.channels)

    def __getitem__(self, index: int) -> Prepared:
        case = self.source[index]
        place = self._places()
        kept = [k for k, row in enumerate(case.mapped) if row in place]
        theirs = zip(self.source.task.findings, case.findings, strict=True)
        stated = {self.names.get(name): value for name, value in theirs}
        return replace(
            case,
            image=self._image(case),
            segmentation=None if case.segmentation is None else self._labels(case),
            findings=np.array(
                [stated.get(f, np.nan) for f in self.known.findings], dtype=np.float32
            ),
            masks=np.asarray(case.masks)[kept],
            mapped=tuple(place[case.mapped[k]] for k in kept),
        )

    def _image(self, case: Prepared) -> NDArray[np.float16]:
        """In the model's stored unit: what the other modality shows, laid into the CT window."""
        stored: NDArray[np.float32] = np.array(case.image, dtype=np.float32)
        low, high = self.window_hu
        theirs, ours = self.source.task.modality, self.known.modality
        if theirs != ours:
            image = torch.from_numpy(stored)[None]
            shown = to_display(image, modality=theirs, window_hu=self.window_hu)[0].numpy()
            stored = shown * np.float32(high - low) + np.float32(low) if ours == "ct" else shown
        empty = np.zeros_like(stored[0])
        picked = [empty if place is None else stored[place] for place in self.channels]
        return np.stack(picked).astype(np.float16)

    def _labels(self, case: Prepared) -> NDArray[np.int16]:
        reference = np.asarray(case.segmentation)
        labels = np.zeros(reference.shape, dtype=np.int16)
        for region, members in self.task.regions.items():
            if len(members) == 1:
                labels[np.isin(reference, self.source.task.regions[region])] = members[0]
        labels[reference == IGNORE] = IGNORE
        return labels

    def _places(self) -> dict[int, int]:
        """The cohort's map numbers -> the model's, for the findings that both know."""
        places = {0: 0}
        for number, finding in enumerate(self.source.task.findings):
            if finding in self.names:
                places[1 + number] = 1 + self.known.findings.index(self.names[finding])
        return places


def _matched(theirs: tuple[str, ...], ours: tuple[str, ...]) -> list[int | None]:
    if len(theirs) == len(ours) == 1:
        return [0]
    found = [theirs.index(name) if name in theirs else None for name in ours]
    if not any(place is not None for place in found):
        raise DataError(
            f"no channel in common: the model reads {', '.join(ours)}, the cohort has "
            f"{', '.join(theirs)}"
        )
    return found
