"""The device and the dtype that a config asks for."""

from __future__ import annotations

import torch

from gymnast_core.errors import ConfigError


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return getattr(torch, name)
    # Without AVX512-BF16, a CPU emulates bfloat16 products and is slower than in float32.
    on_cpu = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if on_cpu or on_gpu else torch.float32


def find_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ConfigError(f"No torch device {name!r}. Use auto, cpu, cuda or cuda:0.") from None
