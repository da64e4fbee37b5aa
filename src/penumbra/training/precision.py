"""Mixed precision: activations in bfloat16, parameters and losses in float32."""

from typing import Literal

import torch


def autocast(device: torch.device, precision: Literal["float32", "bfloat16"]) -> torch.autocast:
    """The context of a forward pass; bfloat16 has float32's range, so no loss is scaled."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
