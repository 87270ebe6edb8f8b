"""Attention by device: what is fused well on a GPU is not on a CPU.

PyTorch's fused kernel for CPUs is at its best in float32 and on long sequences. Written out as two products and a
softmax, short sequences take less time, in bfloat16 a fifth; longer ones of coarse numbers are computed in float32,
since the fused kernel's backward pass in bfloat16 takes three times as long. The result is the same within rounding,
and a row is computed alike with and without gradients.
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
"""Keys up to which attention is written out on a CPU."""


def attend(query_BHQE: Tensor, key_BHKE: Tensor, value_BHKE: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mixed values (B, H, Q, E). `mask` is added to the scores (broadcast over (B, H, Q, K)); None hides nothing."""
    if query_BHQE.device.type != "cpu":
        return F.scaled_dot_product_attention(query_BHQE, key_BHKE, value_BHKE, attn_mask=mask)
    dtype = query_BHQE.dtype
    if key_BHKE.shape[-2] <= SHORT:
        scores_BHQK = query_BHQE * query_BHQE.shape[-1] ** -0.5 @ key_BHKE.transpose(-1, -2)
        if mask is not None:
            scores_BHQK = scores_BHQK + mask
        return scores_BHQK.softmax(-1, dtype=torch.float32).to(dtype) @ value_BHKE
    if is_coarse(dtype):
        wide = None if mask is None else mask.float()
        mixed_BHQE = F.scaled_dot_product_attention(
            query_BHQE.float(), key_BHKE.float(), value_BHKE.float(), attn_mask=wide
        )
        return mixed_BHQE.to(dtype)
    return F.scaled_dot_product_attention(query_BHQE, key_BHKE, value_BHKE, attn_mask=mask)


def language_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """`attend` as transformers' language models call it; causal attention, which comes without a mask, is theirs."""
    if attention_mask is None or attention_mask.dtype == torch.bool or query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    groups: Any = module.num_key_value_groups
    mixed_BHQE = attend(query, repeat_kv(key, groups), repeat_kv(value, groups), attention_mask)
    return mixed_BHQE.transpose(1, 2).contiguous(), None


AttentionInterface.register(AUTO, language_attention)
AttentionMaskInterface.register(AUTO, sdpa_mask)
