"""Switches of a training that must not change what it learns: precision and compilation."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys import log

from penumbra import checkpoint, pipeline
from penumbra.config import resolve
from penumbra.data.phantom import write_phantom

SOURCE = Path(__file__).parents[2] / "src"
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
    # Small steps: processors round bfloat16 in their own ways, and large ones let that grow.
    smooth = {"bayes__posterior": "none", "adversarial__weight": 0.0, "train__lr": 1e-5}
    full, half = trained(**smooth), trained(train__precision="bfloat16", **smooth)
    assert half[0] == pytest.approx(full[0], rel=0.1)
    assert half[0] != full[0]
    assert {t.dtype for k, t in half[1].items() if k.startswith("model/decoder")} == {torch.float32}


def test_a_compiled_encoder_learns_the_same_and_is_saved_under_the_same_names(
    trained: Callable[..., tuple[list[float], dict[str, Tensor]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eagerly: code that torch generates cannot hold our shape checks."""
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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_code_that_torch_generates_runs_and_learns_the_same(tmp_path: Path) -> None:
    """In a process of its own, where our shape checks are off, as they are for a user."""
    program = tmp_path / "program.py"
    program.write_text(
        "import json, pathlib, sys\n"
        "from torch._inductor import metrics\n"
        "from penumbra import pipeline\n"
        "from penumbra.config import resolve\n"
        "from penumbra.data.phantom import write_phantom\n"
        "here, lean = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])\n"
        "write_phantom(here / 'films', modality='xray', cases=6, seed=0, shape=(16, 16))\n"
        "for name in ('plain', 'compiled'):\n"
        "    changed = lean | {'train.compile': name == 'compiled'}\n"
        "    config = resolve('phantom-xray', size='tiny', overrides=changed)\n"
        "    pipeline.pretrain(config, here / 'films', here / name)\n"
        "    print(name, metrics.generated_kernel_count)\n"
    )
    lean = LEAN | {"pretrain.steps": 3, "pretrain.batch": 4, "train.validate_every": 0}
    words = [sys.executable, str(program), str(tmp_path), json.dumps(lean)]
    own = {
        "PYTHONPATH": str(SOURCE),
        "PENUMBRA_CACHE": str(tmp_path / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "generated"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # else each imports torch
    }
    environment = os.environ | own
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]
    kernels = dict(line.split() for line in ended.stdout.splitlines()[-2:])
    assert int(kernels["plain"]) == 0 < int(kernels["compiled"])
    plain, compiled = (log(tmp_path / name / "pretrain") for name in ("plain", "compiled"))
    expected = [line["total"] for line in plain]
    assert [line["total"] for line in compiled] == pytest.approx(expected, rel=1e-4)
    first, second = (
        checkpoint.read(tmp_path / name / "pretrain" / "encoder.safetensors")[0]
        for name in ("plain", "compiled")
    )
    assert first.keys() == second.keys()
