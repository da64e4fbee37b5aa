"""A model that answers the same whoever is asked is found out, and no other."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import numpy as np
import torch

from penumbra.assess.constant import Answers
from penumbra.data.preprocess import Prepared
from penumbra.inference.maps import CaseMaps
from penumbra.types import Uncertainty

Make = Callable[..., Prepared]


def uncertainty(probability: torch.Tensor) -> Uncertainty:
    return Uncertainty(**{f.name: probability for f in fields(Uncertainty)})


def maps(*, voxels: torch.Tensor | None = None, findings: torch.Tensor | None = None) -> CaseMaps:
    return CaseMaps(
        voxels=None if voxels is None else uncertainty(voxels),
        findings=None if findings is None else uncertainty(findings),
        attention=torch.zeros(1, 2, 2),
        draw_volumes_ml={},
        disagreement=0.0,
    )


def segmented(case: Make, references: Sequence[int], predictions: Sequence[float]) -> list[str]:
    """Cases of one voxel that holds the structure (1) or not, predicted with these odds."""
    answers = Answers()
    for real, p in zip(references, predictions, strict=True):
        prepared = replace(case((1, 1)), segmentation=np.array([[real]]))
        answers.add(prepared, maps(voxels=torch.tensor([[[1 - p]], [[p]]])))
    return answers.warnings("val")


def found(case: Make, probabilities: Sequence[float], labels: Sequence[float]) -> list[str]:
    answers = Answers()
    for p, y in zip(probabilities, labels, strict=True):
        prepared = replace(case((1, 1)), findings=np.array([y], dtype=np.float32))
        answers.add(prepared, maps(findings=torch.tensor([p])))
    return answers.warnings("val")


def test_a_model_that_marks_nothing_is_found_out(case: Make) -> None:
    (sentence,) = segmented(case, [1, 1, 0], [0.4, 0.1, 0.0])
    assert "no structure in any of the 2 val case(s)" in sentence


def test_one_marked_patient_is_enough(case: Make) -> None:
    assert segmented(case, [1, 1, 0], [0.4, 0.6, 0.0]) == []


def test_nothing_is_expected_of_patients_without_a_structure(case: Make) -> None:
    assert segmented(case, [0, 0, -1], [0.1, 0.1, 0.1]) == []


def test_probabilities_that_do_not_vary_are_found_out(case: Make) -> None:
    (sentence,) = found(case, [0.50, 0.51, 0.50, 0.49], [0, 1, 0, 1])
    assert "all 4 val cases the same probability" in sentence


def test_probabilities_that_vary_are_an_answer_even_a_wrong_one(case: Make) -> None:
    assert found(case, [0.9, 0.1, 0.8, 0.2], [0, 1, 0, 1]) == []


def test_labels_of_one_kind_prove_nothing(case: Make) -> None:
    assert found(case, [0.5, 0.5, 0.5], [0, 0, np.nan]) == []
    assert Answers().warnings("val") == []
