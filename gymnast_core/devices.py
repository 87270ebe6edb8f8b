"""What devices do well."""

from __future__ import annotations

import torch


def is_bfloat16_fast(device: torch.device) -> bool:
    """Whether products of matrices in bfloat16 are faster than in float32 there.

    Without AVX512-BF16 a CPU emulates them, and is slower.
    """
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
