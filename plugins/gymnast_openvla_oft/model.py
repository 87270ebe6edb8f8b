"""OpenVLA-OFT (arXiv 2502.19645): images and an instruction in, a whole chunk of action tokens out at once.

Sequence: `[BOS][patches of every image][rest of the prompt][K zero embeddings][end token][padding]`.
Attention is bidirectional, and the outputs from the last prompt token on predict the K = L·A action tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from gymnast_openvla_oft.vision import TowerShape, VisionBackbone

END_TOKEN = 2


@dataclass(frozen=True)
class ModelShape:
    """Everything needed to build the network; weights come afterwards."""

    dino: TowerShape
    siglip: TowerShape
    llama: LlamaConfig
    bins: int
    """Action tokens: the last ids of the effective vocabulary."""
    padding_rows: int
    """Rows of the embedding table beyond the effective vocabulary (`pad_to_multiple_of`)."""

    @property
    def effective_vocabulary(self) -> int:
        """Token ids in use; also the id of the padding token."""
        return self.llama.vocab_size - self.padding_rows


@dataclass(frozen=True)
class Prompts:
    """Tokenised prompts, padded on the right."""

    ids_BS: Tensor
    """int64."""
    lengths_B: Tensor
    """int64, tokens of each prompt, BOS included."""


@dataclass(frozen=True)
class Hidden:
    """Final-norm outputs of the language model (width E)."""

    actions_BKE: Tensor
    """Where the K action tokens are predicted."""
    patches_BPE: Tensor
    """At the image patches."""


class Projector(nn.Module):
    """Patch features to language-model embeddings."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_width, 4 * vision_width)
        self.fc2 = nn.Linear(4 * vision_width, width)
        self.fc3 = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(features)))))


class OFTModel(nn.Module):
    """The network. Its state dict has the names of published checkpoints."""

    def __init__(self, shape: ModelShape, attention: str = "sdpa") -> None:
        super().__init__()
        self.shape = shape
        self.vision_backbone = VisionBackbone(shape.dino, shape.siglip)
        self.projector = Projector(shape.dino.width + shape.siglip.width, shape.llama.hidden_size)
        shape.llama._attn_implementation = attention
        self.language_model = LlamaForCausalLM(shape.llama)

    @classmethod
    def empty(cls, shape: ModelShape, attention: str = "sdpa") -> OFTModel:
        """The network on the meta device: it costs no memory and draws no random numbers."""
        with torch.device("meta"):
            return cls(shape, attention)

    def rebuild_buffers(self) -> None:
        """Recompute what is neither trained nor saved: the rotary frequencies, lost on the meta device."""
        device = self.language_model.lm_head.weight.device
        self.language_model.model.rotary_emb = LlamaRotaryEmbedding(self.shape.llama).to(device)

    def forward(self, pixels_BVCHW: Tensor, prompts: Prompts, count: int) -> Hidden:
        """Hidden states at `count` action positions and at the patches.

        Pixels are normalised floats (B, V, 6, H, W). Prompts may differ in length: a padded row gives what it
        would give alone.
        """
        dtype = self.projector.fc1.weight.dtype
        patches_BPE = self.projector(self.vision_backbone(pixels_BVCHW.to(dtype)))
        embeds_BSE, real_BS = self.embed(patches_BPE, prompts, count)
        hidden_BSE = self.language_model.model(
            inputs_embeds=embeds_BSE, attention_mask=_bidirectional_mask(real_BS, dtype), use_cache=False
        ).last_hidden_state
        patches = patches_BPE.shape[1]
        start_B = patches + prompts.lengths_B - 1
        index_BK = start_B[:, None] + torch.arange(count, device=start_B.device)
        actions_BKE = hidden_BSE.gather(1, index_BK[..., None].expand(-1, -1, hidden_BSE.shape[-1]))
        return Hidden(actions_BKE=actions_BKE, patches_BPE=hidden_BSE[:, 1 : 1 + patches])

    def embed(self, patches_BPE: Tensor, prompts: Prompts, count: int) -> tuple[Tensor, Tensor]:
        """The language model's input (B, S, E) and which of its positions are real, bool (B, S)."""
        ids_BS, lengths_B1 = prompts.ids_BS, prompts.lengths_B[:, None]
        pad = self.shape.effective_vocabulary
        offset = torch.arange(ids_BS.shape[1] + count, device=ids_BS.device)[None]
        text = offset < lengths_B1 - 1
        end = offset == lengths_B1 - 1 + count
        real = offset <= lengths_B1 - 1 + count
        tail = F.pad(ids_BS[:, 1:], (0, count + 1), value=pad)
        tail = torch.where(text, tail, torch.where(end, END_TOKEN, pad))
        embedding = self.language_model.model.embed_tokens
        placeholder = real & ~text & ~end
        tail_BSE = embedding(tail).masked_fill(placeholder[..., None], 0.0)
        embeds_BSE = torch.cat([embedding(ids_BS[:, :1]), patches_BPE, tail_BSE], dim=1)
        return embeds_BSE, F.pad(real, (1 + patches_BPE.shape[1], 0), value=True)

    def action_logits(self, actions_BKE: Tensor) -> Tensor:
        """float32 logits (B, K, bins); class j is token id `effective_vocabulary - bins + j`."""
        last = self.shape.effective_vocabulary
        return F.linear(actions_BKE, self.language_model.lm_head.weight[last - self.shape.bins : last]).float()


def _bidirectional_mask(real_BS: Tensor, dtype: torch.dtype) -> Tensor:
    """An explicit additive mask: given none, or one of two dimensions, Llama would attend causally."""
    batch, length = real_BS.shape
    if bool(real_BS.all()):
        return torch.zeros(1, 1, length, length, dtype=dtype, device=real_BS.device)
    mask = torch.zeros(batch, 1, 1, length, dtype=dtype, device=real_BS.device)
    mask = mask.masked_fill(~real_BS[:, None, None], torch.finfo(dtype).min)
    return mask.expand(batch, 1, length, length)
