"""What an attacker of a posterior sees: every draw, through one pass of the encoder."""

import pytest
import torch

from penumbra import trained
from penumbra.assess.hardship import subject_of
from penumbra.bayes import bank, to_probabilities
from penumbra.config import resolve
from penumbra.robust.attack import value_and_gradient
from penumbra.robust.ladder import mean_of
from penumbra.robust.objective import label_loss
from penumbra.trained import Trained
from penumbra.types import Task

TASK = Task("mri", ("t1",), ("background", "tumor"), label_values={0: 0, 1: 1})


@pytest.mark.parametrize("decoders", [1, 2])
@pytest.mark.parametrize("dim", [2, 3])
def test_the_gradient_of_all_draws_is_that_of_a_loop_and_encodes_once(
    dim: int, decoders: int, generator: torch.Generator
) -> None:
    overrides = {
        "data.dim": dim,
        "data.patch": [16] * dim,
        "data.spacing_mm": [2.0] * dim,
        "bayes.decoders": decoders,
        "bayes.sigma0": 0.3,
    }
    config = resolve("phantom-mri", size="tiny", overrides=overrides)
    network = trained.build(config, TASK)
    trained.convert(network, config)
    model = Trained(network.eval(), TASK, config)
    image = torch.rand((2, 1, *[16] * dim), generator=generator)
    labels = (image[:, 0] > 0.5).long()
    drawn = bank(network, draws=4, generator=torch.Generator().manual_seed(config.seed + 2))

    def one_by_one(x: torch.Tensor) -> torch.Tensor:
        answers = (drawn.decode(drawn.encode(x), t) for t in range(4))
        shares = [to_probabilities(answer).segmentation for answer in answers]
        return torch.stack([share for share in shares if share is not None]).mean(0)

    encoded = []
    network.encoder.register_forward_hook(lambda *_: encoded.append(1))
    predict = mean_of(subject_of(model, draws=4).draws)
    value, gradient = value_and_gradient(label_loss(predict, labels), image)
    assert len(encoded) == 1
    expected, slope = value_and_gradient(label_loss(one_by_one, labels), image)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-7)
    assert gradient.abs().max() > 0
