"""The number format of the weights."""

from __future__ import annotations

import torch

from gymnast_core.devices import is_bfloat16_fast
from gymnast_openvla_oft.attention import AUTO

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CHOICES = (*DTYPES, AUTO)


def weights_dtype(chosen: str) -> str:
    """A name of `DTYPES` for one of `CHOICES`; "auto" is decided by this machine."""
    if chosen != AUTO:
        return chosen
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bfloat16" if is_bfloat16_fast(device) else "float32"
