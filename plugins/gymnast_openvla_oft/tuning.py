"""What of the network learns, and how memory and time are saved while it does: `policy.args.train`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from gymnast_core.config.ranges import Choices, Range, Seed, check_values
from gymnast_openvla_oft.adapters import Adapter
from gymnast_openvla_oft.lora import add_lora, default_alpha
from gymnast_openvla_oft.model import OFTModel

VISION = ("full", "frozen")
FEATURE_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Tuning:
    """Which weights learn, and at what price. `gymnast plan` says what fits."""

    vision: Annotated[str, Choices(*VISION)] = "full"
    """"full", or "frozen": the towers keep their weights, so that their features are computed once a frame."""
    feature_store_mib: Annotated[int, Range(least=0, most=2**24)] = 4096
    """Host memory for the features of frozen towers, MiB; the oldest go first. 0 computes them every time."""
    feature_dtype: Annotated[str, Choices(*FEATURE_DTYPES)] | None = None
    """Of kept features: "float32", "bfloat16" or "float16"; None is that of the weights. Coarser ones change actions
    a little, alike when acting and when evaluating."""
    lora_rank: Annotated[int, Range(least=0, most=4096)] = 0
    """Rank of LoRA factors beside every linear layer that would learn; 0 trains the weights themselves. A checkpoint's
    adapter goes on learning if `base` names the model under it; otherwise it is merged, and new factors start."""
    lora_alpha: Annotated[float, Range(above=0, most=1e4)] | None = None
    """Factors count alpha / rank; None is min(rank, 16), as in OpenVLA-OFT."""
    lora_seed: Seed = 0
    """Of the factors' initial values."""
    checkpointing: bool = False
    """Compute each layer again for its gradient instead of keeping what it computed: less memory, a third slower."""


def check_tuning(tuning: Tuning) -> None:
    """Raise `ConfigError` for settings that mean nothing; also of those that were made in Python."""
    check_values(Tuning, asdict(tuning), "train")


def apply_tuning(model: OFTModel, tuning: Tuning, *, adapter: Adapter | None = None, base: str | None = None) -> None:
    """Freeze what does not learn, add LoRA factors (`adapter` are those to go on with), recompute layers.

    `model` may be on the meta device.
    """
    if tuning.vision == "frozen":
        model.vision_backbone.requires_grad_(False)
    if tuning.lora_rank:
        alpha = tuning.lora_alpha or default_alpha(tuning.lora_rank)
        add_lora(model, tuning.lora_rank, alpha, seed=tuning.lora_seed, adapter=adapter or {}, base=base)
    if tuning.checkpointing:
        for block in blocks(model):
            if any(parameter.requires_grad for parameter in block.parameters()):
                # Not transformers' own checkpointing: that is off in evaluation mode, in which RL computes gradients.
                block.forward = partial(_recomputed, block.forward)


def blocks(model: OFTModel) -> list[nn.Module]:
    """The repeated layers that compute: of the language model, and of the vision towers."""
    towers = (model.vision_backbone.featurizer, model.vision_backbone.fused_featurizer)
    return [*model.language_model.model.layers, *(block for tower in towers for block in tower.blocks[:-1])]


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # No layer draws random numbers, so that their state need not be kept.
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
