"""Checkpoints: weights, optimizer and position in one safetensors file, written whole or never.

Nothing is ever unpickled: tensors are safetensors, everything else is JSON in the file's header,
with a checksum of the tensors, for safetensors itself notices a cut but not a flipped bit.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from penumbra.errors import DataError, WriteError, first_line
from penumbra.files import atomic

FORMAT = "penumbra-1"


def save(
    path: Path,
    module: nn.Module,
    *,
    optimizer: Mapping[int, Mapping[str, Any]] | None = None,
    record: dict[str, Any] | None = None,
) -> None:
    """Write a module's state, optionally its optimizer's, and a JSON-able record.

    Args:
        optimizer: the ``state`` of its ``state_dict()``, of whole tensors.

    Raises:
        WriteError: the disk is full or cannot be written.
    """
    state = module.state_dict().items()
    # Copies: numpy pins the storage that it looks at, which a sliced parameter has to free.
    tensors = {f"model/{k}": v.detach().to("cpu", copy=True).contiguous() for k, v in state}
    for index, slots in (optimizer or {}).items():
        for name, value in slots.items():
            tensors[f"optimizer/{index}/{name}"] = torch.as_tensor(value).detach().cpu().clone()
    header = {
        "format": FORMAT,
        "record": json.dumps(record or {}, sort_keys=True),
        "crc32": str(_checksum(tensors)),
    }
    try:
        with atomic(path) as part:
            save_file(tensors, part, metadata=header)
    except SafetensorError as error:  # how it reports a full disk
        raise WriteError(
            f"{path}: cannot be written ({error}); free space and run again"
        ) from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record of a checkpoint.

    Raises:
        DataError: the file is missing, damaged, of another version, or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            found = header.get("format", "no format")
            if found != FORMAT:
                raise DataError(
                    f"{path}: not a Penumbra checkpoint of this version ({found}, expected "
                    f"{FORMAT}); choose one that this version wrote"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        record = json.loads(header["record"])
        if int(header.get("crc32", _checksum(tensors))) != _checksum(tensors):
            raise ValueError("its checksum differs")
    # A damaged header can name any type or any size.
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError, MemoryError) as error:
        raise DataError(
            f"{path}: checkpoint cannot be read ({first_line(error)}); delete it to start this "
            "stage afresh"
        ) from error
    return tensors, record


def load_module(module: nn.Module, tensors: dict[str, Tensor], *, source: Path) -> None:
    """Load the ``model/`` part of ``tensors``.

    Raises:
        DataError: names or shapes do not fit, which means another configuration wrote the file.
    """
    state = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        detail = lines[1].strip() if len(lines) > 1 else lines[0]
        raise DataError(
            f"{source}: weights do not fit the configured network ({detail}); "
            "use the configuration that wrote them or another --out folder"
        ) from error


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the ``optimizer/`` part of ``tensors`` into an optimizer built the same way."""
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            slots.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(
        {"state": slots, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _checksum(tensors: dict[str, Tensor]) -> int:
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(name.encode(), crc)
        raw = tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(raw.tobytes(), crc)
    return crc
