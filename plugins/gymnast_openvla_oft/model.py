"""OpenVLA-OFT (arXiv 2502.19645): images and an instruction in, a whole chunk of action tokens out at once.

Sequence: `[BOS][patches of every image][proprioception][rest of the prompt][K zero embeddings][end token][padding]`.
Attention is bidirectional, and the outputs from the last prompt token on predict the K = L·A action tokens, or feed
the regression head. Plain OpenVLA (arXiv 2406.09246) shares everything up to `features`; see `causal.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from gymnast_openvla_oft.heads import ProprioProjector, RegressionHead
from gymnast_openvla_oft.vision import Attention, TowerShape, VisionBackbone

END_TOKEN = 2
OPTIONAL_PARTS = ("action_head", "proprio_projector")
"""Parts of the network that a checkpoint keeps in files of their own."""


@dataclass(frozen=True)
class ModelShape:
    """Everything needed to build the network; weights come afterwards."""

    dino: TowerShape
    siglip: TowerShape
    llama: LlamaConfig
    bins: int
    """Action tokens: the last ids of the effective vocabulary."""
    padding_rows: int
    """Rows of the embedding table beyond the effective vocabulary."""
    regression_dim: int = 0
    """A, dimensions of the regression head's actions; 0 is a model that decides in tokens."""
    proprio_dim: int = 0
    """P, proprioceptive readings; 0 is a model without."""

    @property
    def effective_vocabulary(self) -> int:
        """Token ids in use."""
        return self.llama.vocab_size - self.padding_rows

    @property
    def pad_token(self) -> int:
        """Id behind the vocabulary, as in published checkpoints; the last one where the embeddings have no row for it.
        What is padded is masked, so that its embedding has no influence."""
        return min(self.effective_vocabulary, self.llama.vocab_size - 1)

    def is_like(self, other: ModelShape) -> bool:
        """Whether the other one describes the same network."""
        alike = replace(self, llama=other.llama) == other
        return alike and self.llama.to_dict() == other.llama.to_dict()


@dataclass(frozen=True)
class Prompts:
    """Tokenised prompts, padded on the right."""

    ids_BS: Tensor
    """int64."""
    lengths_B: Tensor
    """int64, tokens of each prompt, BOS included."""
    even: bool
    """Whether all are of one length: known to whoever made them, so that nobody waits for the device to learn it."""


@dataclass(frozen=True)
class Inputs:
    """One batch as the network reads it."""

    pixels_BVCHW: Tensor | None
    """Normalised float pixels, six channels an image: DINOv2's, then SigLIP's. None where features are given."""
    prompts: Prompts
    proprio_BP: Tensor | None = None
    """float, in [-1, 1]; for networks with a projector of proprioception."""
    features_BPE: Tensor | None = None
    """What `OFTModel.features` gave for these images before."""


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
    """The network. Its state dict has the names of published checkpoints; optional parts come under their own."""

    def __init__(self, shape: ModelShape, attention: str = "sdpa") -> None:
        super().__init__()
        self.shape = shape
        width = shape.llama.hidden_size
        self.vision_backbone = VisionBackbone(shape.dino, shape.siglip)
        self.projector = Projector(shape.dino.width + shape.siglip.width, width)
        shape.llama._attn_implementation = attention
        for module in self.vision_backbone.modules():
            if isinstance(module, Attention):
                module.kernel = attention
        self.language_model = LlamaForCausalLM(shape.llama)
        if shape.proprio_dim:
            self.proprio_projector = ProprioProjector(shape.proprio_dim, width)
        if shape.regression_dim:
            self.action_head = RegressionHead(width, shape.regression_dim)
            # It never gets a gradient, so it must not want one, or distributed training waits for it.
            self.language_model.lm_head.requires_grad_(False)

    @classmethod
    def empty(cls, shape: ModelShape, attention: str = "sdpa") -> OFTModel:
        """The network on the meta device: it costs no memory and draws no random numbers."""
        with torch.device("meta"):
            return cls(shape, attention)

    def rebuild_buffers(self) -> None:
        """Recompute what is neither trained nor saved: the rotary frequencies, lost on the meta device."""
        device = self.language_model.lm_head.weight.device
        self.language_model.model.rotary_emb = LlamaRotaryEmbedding(self.shape.llama).to(device)

    @property
    def dtype(self) -> torch.dtype:
        return self.projector.fc1.weight.dtype

    def features(self, inputs: Inputs) -> Tensor:
        """Features of the vision towers, (B, V·patches, width): all that depends on pixels alone, FiLM excepted."""
        if inputs.features_BPE is not None:
            return inputs.features_BPE.to(self.dtype)
        assert inputs.pixels_BVCHW is not None
        language_BE = self._mean_language(inputs.prompts) if self.shape.dino.film_width else None
        return self.vision_backbone(inputs.pixels_BVCHW.to(self.dtype), language_BE)

    def prefix(self, inputs: Inputs) -> Tensor:
        """Embeddings of the image patches, and of proprioception where the network reads it (B, P, E)."""
        patches_BPE = self.projector(self.features(inputs))
        if not self.shape.proprio_dim:
            return patches_BPE
        assert inputs.proprio_BP is not None
        proprio_BE = self.proprio_projector(inputs.proprio_BP.to(self.dtype))
        return torch.cat([patches_BPE, proprio_BE[:, None]], dim=1)

    def forward(self, inputs: Inputs, count: int) -> Hidden:
        """Hidden states at `count` action positions and at the patches.

        Prompts may differ in length: a padded row gives what it would give alone.
        """
        prefix_BPE = self.prefix(inputs)
        embeds_BSE, real_BS = self.embed(prefix_BPE, inputs.prompts, count)
        mask_B1SS = _bidirectional_mask(real_BS, inputs.prompts.even, embeds_BSE.dtype)
        hidden_BSE = self.language_model.model(
            inputs_embeds=embeds_BSE, attention_mask=mask_B1SS, use_cache=False
        ).last_hidden_state
        start_B = prefix_BPE.shape[1] + inputs.prompts.lengths_B - 1
        actions_BKE = take(hidden_BSE, start_B, count)
        patches = prefix_BPE.shape[1] - (1 if self.shape.proprio_dim else 0)
        return Hidden(actions_BKE=actions_BKE, patches_BPE=hidden_BSE[:, 1 : 1 + patches])

    def embed(self, prefix_BPE: Tensor, prompts: Prompts, count: int) -> tuple[Tensor, Tensor]:
        """The language model's input (B, S, E) and which of its positions are real, bool (B, S)."""
        ids_BS, lengths_B1 = prompts.ids_BS, prompts.lengths_B[:, None]
        pad = self.shape.pad_token
        offset = torch.arange(ids_BS.shape[1] + count, device=ids_BS.device)[None]
        text = offset < lengths_B1 - 1
        end = offset == lengths_B1 - 1 + count
        real = offset <= lengths_B1 - 1 + count
        tail = F.pad(ids_BS[:, 1:], (0, count + 1), value=pad)
        tail = torch.where(text, tail, torch.where(end, END_TOKEN, pad))
        embedding = self.language_model.model.embed_tokens
        placeholder = real & ~text & ~end
        tail_BSE = embedding(tail).masked_fill(placeholder[..., None], 0.0)
        embeds_BSE = torch.cat([embedding(ids_BS[:, :1]), prefix_BPE, tail_BSE], dim=1)
        return embeds_BSE, F.pad(real, (1 + prefix_BPE.shape[1], 0), value=True)

    def action_logits(self, actions_BKE: Tensor) -> Tensor:
        """float32 logits (B, K, bins); class j is token id `effective_vocabulary - bins + j`."""
        last = self.shape.effective_vocabulary
        return F.linear(actions_BKE, self.language_model.lm_head.weight[last - self.shape.bins : last]).float()

    def _mean_language(self, prompts: Prompts) -> Tensor:
        """Mean embedding of a prompt and the end token, without padding: what FiLM is conditioned on."""
        embedding = self.language_model.model.embed_tokens
        real_BS = torch.arange(prompts.ids_BS.shape[1], device=prompts.ids_BS.device) < prompts.lengths_B[:, None]
        total_BE = (embedding(prompts.ids_BS) * real_BS[..., None]).sum(1)
        end_E = embedding(torch.full((1,), END_TOKEN, device=prompts.ids_BS.device))
        return (total_BE + end_E) / (prompts.lengths_B[:, None] + 1).to(total_BE.dtype)


def take(hidden_BSE: Tensor, start_B: Tensor, count: int) -> Tensor:
    """`count` positions of each row from its own start on, (B, count, E)."""
    index_BK = start_B[:, None] + torch.arange(count, device=start_B.device)
    return hidden_BSE.gather(1, index_BK[..., None].expand(-1, -1, hidden_BSE.shape[-1]))


def _bidirectional_mask(real_BS: Tensor, even: bool, dtype: torch.dtype) -> Tensor:
    """An explicit additive mask: given none, or one of two dimensions, Llama would attend causally."""
    batch, length = real_BS.shape
    if even:
        return torch.zeros(1, 1, length, length, dtype=dtype, device=real_BS.device)
    mask = torch.zeros(batch, 1, 1, length, dtype=dtype, device=real_BS.device)
    mask = mask.masked_fill(~real_BS[:, None, None], torch.finfo(dtype).min)
    return mask.expand(batch, 1, length, length)
