"""Wan's transformer with a robot's actions in the place of a text.

An action enters twice, as in WoVR (arXiv 2602.13977) and the checkpoints that RLinf published for it: as a token that
the frames attend to, and, four to a latent frame, added to that frame's time, which modulates every layer.

Shapes: B episodes, F latent frames, C h w latent channels and pixels, T frames and actions, A action dimensions, N
tokens, D width.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor, nn

from gymnast_wan.facts import FRAMES_A_LATENT, PATCH, Architecture

CONDITIONER = "condition_embedder"
"""Where diffusers' transformer keeps what embeds times and texts."""


class ActionConditioner(nn.Module):
    """Does for actions what diffusers' `WanTimeTextImageEmbedding`, whose place it takes, does for texts."""

    def __init__(self, embedding: Any, architecture: Architecture, lead_in: str) -> None:
        super().__init__()
        width, dim, way = architecture.action_dim, architecture.dim, architecture.conditioning
        self.lead_in = lead_in
        self.timesteps_proj = embedding.timesteps_proj
        self.time_embedder, self.act_fn, self.time_proj = embedding.time_embedder, embedding.act_fn, embedding.time_proj
        self.tokens: nn.Module | None = None
        self.frames: nn.Module | None = None
        if way in ("both", "tokens"):
            self.tokens = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))
        if way in ("both", "modulation"):
            grouped = FRAMES_A_LATENT * width
            self.frames = nn.Sequential(nn.Linear(grouped, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))

    def forward(
        self,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_image: Tensor | None = None,
        timestep_seq_len: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        """As diffusers calls it: times (B · N,), and actions (B, T, A) where it hands on texts.

        Returns the embedded times (B, N, D), their modulation (B, N, 6 · D) and the tokens to attend to (B, T, D).
        """
        actions_BTA = encoder_hidden_states
        batch = len(actions_BTA)
        times = self.timesteps_proj(timestep).unflatten(0, (batch, -1))
        times = times.to(self.time_embedder.linear_1.weight.dtype)
        times_BND = self.time_embedder(times).to(self.time_proj.weight.dtype)
        if self.frames is not None:
            frames_BFD = self.frames(self.grouped(actions_BTA))
            times_BND = times_BND + frames_BFD.repeat_interleave(times_BND.shape[1] // frames_BFD.shape[1], dim=1)
        if self.tokens is not None:
            tokens_BTD = self.tokens(actions_BTA)
        else:
            tokens_BTD = times_BND.new_zeros(batch, 1, times_BND.shape[-1])
        return times_BND, self.time_proj(self.act_fn(times_BND)), tokens_BTD, None

    def grouped(self, actions_BTA: Tensor) -> Tensor:
        """The actions that lead to each latent frame, one after the other (B, F, 4 · A).

        The first latent frame holds one frame and so has one action; `lead_in` says what stands before it.
        """
        missing = -actions_BTA.shape[1] % FRAMES_A_LATENT
        first_B1A = actions_BTA[:, :1]
        before = (first_B1A if self.lead_in == "repeat" else torch.zeros_like(first_B1A)).expand(-1, missing, -1)
        return torch.cat([before, actions_BTA], dim=1).unflatten(1, (-1, FRAMES_A_LATENT)).flatten(2)


class Network(nn.Module):
    """What predicts the flow. `dtype` is that of the weights, `compute_dtype` that of matrix products."""

    def __init__(self, transformer: Any, dtype: torch.dtype, compute_dtype: torch.dtype) -> None:
        super().__init__()
        self.transformer = transformer
        self.dtype, self.compute_dtype = dtype, compute_dtype

    def forward(self, latents_BCFhw: Tensor, times_B: Tensor, actions_BTA: Tensor, known: int) -> Tensor:
        """The velocity noise - clean, float32 (B, C, F, h, w).

        `times_B` are timesteps (0 clean, 1000 noise) of all but the `known` first latent frames, which are clean.
        Timesteps are rounded to the dtype that is computed in, as in the training of the published weights.
        """
        frames, height, width = latents_BCFhw.shape[2:]
        tokens = (height // PATCH) * (width // PATCH)
        device = latents_BCFhw.device
        times = times_B.to(device, self.compute_dtype).float()
        times_BF = times[:, None] * (torch.arange(frames, device=device) >= known)
        with self._computing(device):
            velocity = self.transformer(
                latents_BCFhw.to(self.dtype),
                times_BF.repeat_interleave(tokens, dim=1),
                actions_BTA.to(device, self.dtype),
                return_dict=False,
            )[0]
        return velocity.float()

    def _computing(self, device: torch.device) -> AbstractContextManager[object]:
        if self.compute_dtype == self.dtype:
            return nullcontext()
        return torch.autocast(device.type, self.compute_dtype)


def make_transformer(architecture: Architecture, lead_in: str) -> Any:
    """A `WanTransformer3DModel` of these sizes that takes actions, with random weights; on "meta", without any."""
    transformer: Any = WanTransformer3DModel(
        patch_size=(1, PATCH, PATCH),
        num_attention_heads=architecture.heads,
        attention_head_dim=architecture.dim // architecture.heads,
        in_channels=architecture.latent_channels,
        out_channels=architecture.latent_channels,
        text_dim=1,
        freq_dim=architecture.freq_dim,
        ffn_dim=architecture.ffn_dim,
        num_layers=architecture.layers,
    )
    conditioner = ActionConditioner(transformer.condition_embedder, architecture, lead_in)
    setattr(transformer, CONDITIONER, conditioner)
    return transformer


def give_weights(transformer: Any, weights: dict[str, Tensor]) -> None:
    """Put weights of the right names and shapes into a transformer that has none yet."""
    transformer.load_state_dict(weights, assign=True)
    config = transformer.config
    # Its tables are no weights, and were not computed either.
    transformer.rope = WanRotaryPosEmbed(config.attention_head_dim, config.patch_size, config.rope_max_seq_len)


def cast(module: Any, dtype: torch.dtype) -> Any:
    """The module with weights of that dtype, but for those that diffusers keeps in float32 (norms, times)."""
    kept = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    for name, parameter in module.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if kept & set(name.split(".")) else dtype)
    return module
