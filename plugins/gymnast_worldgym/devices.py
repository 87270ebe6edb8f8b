"""The dtype that a config asks for."""

from __future__ import annotations

import torch

from gymnast_core.devices import is_bfloat16_fast


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if is_bfloat16_fast(device) else torch.float32
