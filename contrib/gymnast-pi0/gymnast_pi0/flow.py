"""Running transformers' PI0: the prefix once, then the denoising steps, with gradients where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gymnast_pi0.inputs import Inputs

if TYPE_CHECKING:
    from transformers import Cache, PI0ForConditionalGeneration


def initial_noise(seeds: Sequence[int], shape: tuple[int, int]) -> Tensor:
    """Standard normal (B, *shape), float32: row i depends on `seeds[i]` alone, on every kind of device."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@dataclass(frozen=True)
class Prefix:
    """What the vision-language model makes of pictures and text."""

    cache: Cache
    """Keys and values."""
    hidden_BSE: Tensor
    """Outputs of its last layer."""

    def mean(self, mask_BS: Tensor) -> Tensor:
        """float32 (B, E), over pictures and text without padding."""
        weight_BS1 = mask_BS[..., None].float()
        return (self.hidden_BSE.float() * weight_BS1).sum(1) / weight_BS1.sum(1)


def read_prefix(model: PI0ForConditionalGeneration, inputs: Inputs, *, gradient: bool) -> Prefix:
    """Pictures and text through the vision-language model, differentiable if `gradient`."""
    with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
        views = torch.ones(inputs.pixels_BVCHW.shape[:2], dtype=torch.bool, device=inputs.ids_BS.device)
        embeddings = model.model.embed_prefix(inputs.ids_BS, inputs.pixels_BVCHW.to(model.dtype), views)
        read = model.model.vlm(
            inputs_embeds=embeddings,
            attention_mask=inputs.mask_BS,
            position_ids=inputs.mask_BS.cumsum(-1) - 1,
            token_type_ids=torch.zeros_like(inputs.ids_BS),
            use_cache=True,
        )
    return Prefix(read.past_key_values, read.last_hidden_state)


def integrate(
    model: PI0ForConditionalGeneration, inputs: Inputs, prefix: Prefix, noise_BLD: Tensor, steps: int
) -> Tensor:
    """Carry noise along the learned velocity to actions, float32 (B, chunk_size, max_action_dim).

    Euler steps from time 1 (noise) to 0 (actions): x <- x - v(x, t) / steps (arXiv 2410.24164, section IV).
    Differentiable in the action expert, and in the vision-language model if the prefix is.
    """
    cache = prefix.cache
    length = cache.get_seq_length()
    state_BP, x = inputs.state_BP.to(model.dtype), noise_BLD.float()
    for step in range(steps):
        time_B = torch.full((len(x),), 1.0 - step / steps, dtype=torch.float32, device=x.device)
        velocity = model(
            state=state_BP,
            noise=x.to(model.dtype),
            timestep=time_B,
            attention_mask=inputs.mask_BS,
            past_key_values=cache,
        ).logits
        # Each step attends to the prefix only, not to the steps before it.
        cache.crop(length - cache.get_seq_length())
        x = x - velocity.float() / steps
    return x
