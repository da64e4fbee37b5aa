"""Switches of a training that must not change what it learns: precision and compilation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from toys import log

from penumbra import checkpoint, pipeline
from penumbra.config import resolve
from penumbra.data.phantom import write_phantom

LEAN = {
    "data.image_size": [16, 16],
    "data.patch": [16, 16],
    "pretrain.steps": 0,
    "train.steps": 4,
    "train.batch": 4,
    "train.validate_every": 4,
    "bayes.warm_start": 0.5,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[list[float], dict[str, Tensor]]]:
    """Losses and final weights of a short training with some settings changed."""
    data = tmp_path_factory.mktemp("phantom") / "films"
    write_phantom(data, modality="xray", cases=6, seed=0, shape=(16, 16))

    def train(**changes: object) -> tuple[list[float], dict[str, Tensor]]:
        run = tmp_path_factory.mktemp("run")
        changed = {key.replace("__", "."): value for key, value in changes.items()}
        config = resolve("phantom-xray", size="tiny", overrides=LEAN | changed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PENUMBRA_CACHE", str(data.parent / "cache"))
            pipeline.train(config, data, run)
        tensors, _ = checkpoint.read(run / "train" / "last.safetensors")
        return [line["total"] for line in log(run / "train")], tensors

    return train


def test_bfloat16_keeps_parameters_in_float32_and_nearly_the_losses(
    trained: Callable[..., tuple[list[float], dict[str, Tensor]]],
) -> None:
    smooth = {"bayes__posterior": "none", "adversarial__weight": 0.0}
    full, half = trained(**smooth), trained(train__precision="bfloat16", **smooth)
    assert half[0] == pytest.approx(full[0], rel=0.1)
    assert half[0] != full[0]
    assert {t.dtype for k, t in half[1].items() if k.startswith("model/decoder")} == {torch.float32}


def test_a_compiled_encoder_learns_the_same_and_is_saved_under_the_same_names(
    trained: Callable[..., tuple[list[float], dict[str, Tensor]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code that torch would generate is torch's to test, and cannot hold our shape checks."""
    compiled: list[nn.Module] = []
    whole = nn.Module.compile

    def noted(self: nn.Module) -> None:
        compiled.append(self)
        whole(self)

    plain = trained()
    monkeypatch.setattr(nn.Module, "compile", noted)
    with torch.compiler.set_stance("force_eager"):
        switched = trained(train__compile=True)
    assert len(compiled) == 1
    assert switched[0] == plain[0]
    assert switched[1].keys() == plain[1].keys()
