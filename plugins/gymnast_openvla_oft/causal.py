"""Plain OpenVLA (arXiv 2406.09246) on the shared network: causal attention, one action token after another.

Sequence: `[BOS][patches of every image][rest of the prompt][action tokens so far]`, padded on the right. Under causal
attention a row never looks at padding that follows it, so only cached keys need a mask.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from gymnast_openvla_oft.model import Inputs, OFTModel, Prompts, take


def token_logits(model: OFTModel, inputs: Inputs, tokens_BK: Tensor) -> tuple[Tensor, Tensor]:
    """float32 logits (B, K, vocabulary rows) of K given tokens, each after the true ones before it, and the final
    hidden states that predict them (B, K, E), of which the first has seen no token of the K."""
    prefix_BPE = model.prefix(inputs)
    tokens_BK = tokens_BK.to(prefix_BPE.device)
    embeds_BSE = _embed(model, prefix_BPE, _append(inputs.prompts, tokens_BK[:, :-1]))
    hidden_BSE = model.language_model.model(inputs_embeds=embeds_BSE, use_cache=False).last_hidden_state
    start_B = prefix_BPE.shape[1] + inputs.prompts.lengths_B - 1
    hidden_BKE = take(hidden_BSE, start_B, tokens_BK.shape[1])
    return _logits(model, hidden_BKE), hidden_BKE


def generate(
    model: OFTModel, inputs: Inputs, count: int, choose: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """`count` tokens of each row, (B, count), and their log-probabilities; keys and values are cached.

    `choose` maps logits (B, 1, rows) to tokens and log-probabilities, each (B, 1).
    """
    llama = model.language_model.model
    cache = DynamicCache(config=model.shape.llama)
    embeds_BSE = _embed(model, model.prefix(inputs), inputs.prompts)
    hidden_BSE = llama(inputs_embeds=embeds_BSE, past_key_values=cache, use_cache=True).last_hidden_state
    length = embeds_BSE.shape[1]
    real_B = length - inputs.prompts.ids_BS.shape[1] + inputs.prompts.lengths_B
    visible_BS = torch.arange(length, device=embeds_BSE.device) < real_B[:, None]
    last_B1E = take(hidden_BSE, real_B - 1, 1)
    chosen = [choose(_logits(model, last_B1E))]
    for step in range(count - 1):
        visible_BS = F.pad(visible_BS, (0, 1), value=True)
        mask_B11S = torch.zeros(visible_BS.shape, dtype=model.dtype, device=visible_BS.device)
        mask_B11S = mask_B11S.masked_fill(~visible_BS, torch.finfo(model.dtype).min)[:, None, None]
        last_B1E = llama(
            inputs_embeds=llama.embed_tokens(chosen[-1][0]),
            attention_mask=mask_B11S,
            position_ids=(real_B + step)[:, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        chosen.append(choose(_logits(model, last_B1E)))
    tokens, log_probs = zip(*chosen, strict=True)
    return torch.cat(tokens, dim=1), torch.cat(log_probs, dim=1)


def _append(prompts: Prompts, tokens_BK: Tensor) -> Prompts:
    """Prompts with tokens right after each row's last one, before its padding."""
    count = tokens_BK.shape[1]
    ids_BS = F.pad(prompts.ids_BS, (0, count))
    index_BK = prompts.lengths_B[:, None] + torch.arange(count, device=ids_BS.device)
    return Prompts(ids_BS.scatter(1, index_BK, tokens_BK), prompts.lengths_B + count, prompts.even)


def _embed(model: OFTModel, prefix_BPE: Tensor, prompts: Prompts) -> Tensor:
    embeds_BSE = model.language_model.model.embed_tokens(prompts.ids_BS)
    return torch.cat([embeds_BSE[:, :1], prefix_BPE, embeds_BSE[:, 1:]], dim=1)


def _logits(model: OFTModel, hidden_BKE: Tensor) -> Tensor:
    return model.language_model.lm_head(hidden_BKE).float()
