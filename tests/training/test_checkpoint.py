"""A checkpoint is read whole or refused in one line that names the file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from penumbra import checkpoint
from penumbra.errors import DataError


@pytest.fixture
def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return module, optimizer


@pytest.fixture
def saved(trained: tuple[nn.Module, torch.optim.Optimizer], tmp_path: Path) -> Path:
    path = tmp_path / "last.safetensors"
    state = trained[1].state_dict()["state"]
    checkpoint.save(path, trained[0], optimizer=state, record={"step": 7})
    return path


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        checkpoint.read(path)
    line = str(caught.value)
    assert str(path) in line
    assert "\n" not in line
    return line


def test_what_is_saved_comes_back(
    trained: tuple[nn.Module, torch.optim.Optimizer], saved: Path
) -> None:
    module, optimizer = trained
    tensors, record = checkpoint.read(saved)
    assert record == {"step": 7}
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    checkpoint.load_module(other, tensors, source=saved)
    fresh = torch.optim.Adam(other.parameters())
    checkpoint.load_optimizer(fresh, tensors)
    torch.testing.assert_close(other.state_dict(), module.state_dict(), rtol=0, atol=0)
    mine, theirs = fresh.state_dict()["state"], optimizer.state_dict()["state"]
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_nothing_but_the_checkpoint_is_left_in_the_folder(saved: Path) -> None:
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99])
def test_a_truncated_checkpoint_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    assert "cannot be read" in refused(saved)


def test_a_checkpoint_with_one_flipped_bit_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    for place in (0, 9, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 4
        saved.write_bytes(damaged)
        refused(saved)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    assert "not a Penumbra checkpoint" in refused(path)


def test_an_older_format_is_refused_with_both_names(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    header = {"format": "penumbra-0", "record": json.dumps({"step": 1})}
    save_file({"model/weight": torch.zeros(2)}, path, metadata=header)
    assert "penumbra-0" in refused(path)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("it was unpickled",))

    path = tmp_path / "last.safetensors"
    torch.save({"weight": Bomb()}, path)
    assert "cannot be read" in refused(path)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / "nothing.safetensors")


def test_another_network_is_refused_with_what_does_not_fit(saved: Path) -> None:
    tensors, _ = checkpoint.read(saved)
    other = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    with pytest.raises(DataError, match=r"do not fit .*size mismatch for 0\.weight.*another --out"):
        checkpoint.load_module(other, tensors, source=saved)
