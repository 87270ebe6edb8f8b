"""The device and the dtype that a config asks for."""

from __future__ import annotations

import torch

from gymnast_core.devices import is_bfloat16_fast
from gymnast_core.errors import ConfigError


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if is_bfloat16_fast(device) else torch.float32


def find_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ConfigError(f"No torch device {name!r}. Use auto, cpu, cuda or cuda:0.") from None
