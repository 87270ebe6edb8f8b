"""Attention by device: PyTorch's fused kernel is as good as any on a GPU, and on a CPU in float32, not in bfloat16.

There its backward pass is slow. Written out as two products and a softmax, a forward and a backward pass of 16 to 64
tokens take a twelfth to a third of the time, and 128 tokens less than half of it if they are fused in float32
(`benchmarks/attention.py`). The result is the same within rounding, and a row is computed alike with and without
gradients.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.llama.modeling_llama import repeat_kv

from gymnast_core.training.rounding import is_coarse

AUTO = "auto"
"""The option, and the name under which the language model finds it."""
SHORT = 64
"""Keys up to which attention is written out."""


def attend(query_BHQE: Tensor, key_BHKE: Tensor, value_BHKE: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mixed values (B, H, Q, E). `mask` is added to the scores (broadcast over (B, H, Q, K)); None hides nothing."""
    dtype = query_BHQE.dtype
    if query_BHQE.device.type != "cpu" or not is_coarse(dtype):
        return F.scaled_dot_product_attention(query_BHQE, key_BHKE, value_BHKE, attn_mask=mask)
    if key_BHKE.shape[-2] > SHORT:
        mixed_BHQE = F.scaled_dot_product_attention(
            query_BHQE.float(), key_BHKE.float(), value_BHKE.float(), attn_mask=None if mask is None else mask.float()
        )
        return mixed_BHQE.to(dtype)
    scores_BHQK = query_BHQE * query_BHQE.shape[-1] ** -0.5 @ key_BHKE.transpose(-1, -2)
    if mask is not None:
        scores_BHQK = scores_BHQK + mask
    return scores_BHQK.softmax(-1, dtype=torch.float32).to(dtype) @ value_BHKE


def language_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """`attend` as transformers' language models call it; causal attention, which comes without a mask, is theirs."""
    fused = query.device.type != "cpu" or not is_coarse(query.dtype)
    if fused or attention_mask is None or attention_mask.dtype == torch.bool:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    groups: Any = module.num_key_value_groups
    mixed_BHQE = attend(query, repeat_kv(key, groups), repeat_kv(value, groups), attention_mask)
    return mixed_BHQE.transpose(1, 2).contiguous(), None


AttentionInterface.register(AUTO, language_attention)
AttentionMaskInterface.register(AUTO, sdpa_mask)
