"""Switches of a training that must not change what it learns: precision and compilation."""

from collections.abc import Callable
from typing import Any

import jaxtyping
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
    full, half = trained(), trained(train__precision="bfloat16")
    assert half[0] == pytest.approx(full[0], rel=0.1)
    assert half[0] != full[0]
    assert {t.dtype for k, t in half[1].items() if k.startswith("model/decoder")} == {torch.float32}


def test_a_compiled_encoder_learns_the_same_and_is_saved_under_the_same_names(
    trained: Callable[..., tuple[list[float], dict[str, Tensor]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and run without a code generator, which takes a minute and is torch's to test."""
    compiled: list[nn.Module] = []
    whole = nn.Module.compile

    def without_generator(self: nn.Module, *arguments: Any, **options: Any) -> None:
        compiled.append(self)
        whole(self, *arguments, **options | {"backend": "eager"})

    plain = trained()
    # The tracer would follow the checker of shapes into itself.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.setattr(nn.Module, "compile", without_generator)
    traced = trained(train__compile=True)
    assert len(compiled) == 1
    assert traced[0] == pytest.approx(plain[0], rel=1e-5)
    assert traced[1].keys() == plain[1].keys()
