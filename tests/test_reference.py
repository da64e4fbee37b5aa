"""Published networks answer the same questions as ours, and are drawn from like any other."""

import pytest
import torch

from penumbra.bayes import bank
from penumbra.reference import Architecture, Reference

ASKED: list[tuple[Architecture, int, int]] = [
    ("dynunet", 3, 0),
    ("swin-unetr", 2, 0),
    ("densenet121", 0, 4),
]


def made(architecture: Architecture, classes: int, findings: int) -> Reference:
    return Reference(
        architecture, channels=2, classes=classes, findings=findings, dim=2, widths=(4, 8, 8)
    )


@pytest.mark.parametrize(("architecture", "classes", "findings"), ASKED)
def test_a_reference_answers_on_the_grid_of_any_image(
    architecture: Architecture, classes: int, findings: int, generator: torch.Generator
) -> None:
    network = made(architecture, classes, findings).eval()
    (output,) = bank(network, draws=3, generator=generator).probabilities(torch.rand(2, 2, 33, 20))
    if classes:
        assert output.segmentation is not None
        assert output.segmentation.shape == (2, classes, 33, 20)
    else:
        assert output.findings is not None
        assert output.findings.shape == (2, findings)


def test_deep_supervision_speaks_while_training_only() -> None:
    network, image = made("dynunet", 3, 0), torch.rand(2, 2, 8, 8)
    assert [tuple(x.shape) for x in network(image).deep] == [(2, 3, 8, 8)]
    assert network.eval()(image).deep == ()


def test_what_an_architecture_cannot_give_is_refused() -> None:
    with pytest.raises(ValueError, match=r"densenet121 gives findings alone, but 3 classes"):
        made("densenet121", 3, 0)
