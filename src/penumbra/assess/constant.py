"""A model that answers the same whoever is asked has learned nothing, and must say so."""

from dataclasses import dataclass, field

import numpy as np

from penumbra.data.preprocess import Prepared
from penumbra.inference.maps import CaseMaps
from penumbra.types import Part

REMEDY = (
    "Train longer (train.steps), raise train.lr, start from a pre-trained encoder "
    "(penumbra pretrain), or take another seed."
)
VARIATION = 0.05
"""Share of the labels' own deviation, below which a finding's probabilities do not vary: were they
calibrated, they would explain 0.25 % of the labels' variance."""


@dataclass
class Answers:
    """What a model said of some patients, as far as it takes to see whether it tells them apart."""

    marked: list[bool] = field(default_factory=list)
    probability: list[np.ndarray] = field(default_factory=list)
    label: list[np.ndarray] = field(default_factory=list)

    def add(self, case: Prepared, maps: CaseMaps) -> None:
        """A case counts for the segmentation if its reference holds a structure."""
        reference = case.segmentation
        if maps.voxels is not None and reference is not None and (np.asarray(reference) > 0).any():
            self.marked.append(bool((maps.voxels.probability.argmax(0) > 0).any()))
        if maps.findings is not None:
            self.probability.append(maps.findings.probability.numpy())
            self.label.append(np.asarray(case.findings))

    def warnings(self, part: Part) -> list[str]:
        """One sentence for each head whose answer is constant: no structure, or the base rates."""
        found = []
        if self.marked and not any(self.marked):
            found.append(
                f"The model predicts no structure in any of the {len(self.marked)} {part} case(s) "
                "that hold one."
            )
        if self._at_base_rate():
            found.append(
                f"The model gives all {len(self.label)} {part} cases the same probability of each "
                "finding, about its base rate."
            )
        return found

    def _at_base_rate(self) -> bool:
        """Whether no finding's probabilities vary; findings with one kind of label have no say."""
        if not self.label:
            return False
        p, y = np.stack(self.probability), np.stack(self.label)
        varies = []
        for f in range(y.shape[1]):
            known = (y[:, f] == 0) | (y[:, f] == 1)
            spread = y[known, f].std() if known.any() else 0.0
            if spread > 0:
                varies.append(bool(p[known, f].std() >= VARIATION * spread))
        return bool(varies) and not any(varies)
