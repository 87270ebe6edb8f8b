"""The diffusion transformer of WorldGym: attention inside frames, causal attention over time, adaptive norms.

Source: world-model-eval (arXiv 2506.00613); DiT (arXiv 2212.09748), diffusion forcing (arXiv 2407.01392).
Parameter names are those of the published checkpoints.

Shapes: B clips, T frames, H W C latent pixels (channels last), P tokens a frame, D width, A action
dimensions, N heads, d head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gymnast_worldgym.cache import TemporalCache, causal_mask
from gymnast_worldgym.rope import rotate, spatial_table, temporal_table

NORM_EPS = 1e-6
TIMESTEP_FEATURES = 256


class Linear(nn.Linear):
    """A linear map that multiplies in `compute_dtype` and returns it; parameters stay float32."""

    compute_dtype: torch.dtype = torch.float32

    def forward(self, x: Tensor) -> Tensor:
        if self.compute_dtype is torch.float32:
            return super().forward(x)
        dtype = self.compute_dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return F.linear(x.to(dtype), self.weight.to(dtype), bias)


class PatchEmbedding(nn.Conv2d):
    """Conv2d with kernel = stride = patch, computed as one matrix product on channel-last frames."""

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        """(B, T, P, D), tokens row-major."""
        p = self.kernel_size[0]
        b, t, h, w, c = x_BTHWC.shape
        patches = x_BTHWC.reshape(b, t, h // p, p, w // p, p, c).permute(0, 1, 2, 4, 6, 3, 5)
        return F.linear(patches.reshape(b, t, (h // p) * (w // p), c * p * p), self.weight.flatten(1), self.bias)


def timestep_features(t_BT: Tensor) -> Tensor:
    """float32 (B, T, 256): cosines then sines of t·10000^(-i/128); t may be fractional."""
    half = TIMESTEP_FEATURES // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=t_BT.device, dtype=torch.float32) / half)
    angles = t_BT.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Attention(nn.Module):
    """Multi-head attention with rotary positions; subclasses say over which axis."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv_proj = Linear(dim, 3 * dim, bias=False)
        self.out_proj = Linear(dim, dim)

    def _rotated(self, x_BTPD: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = self.qkv_proj(x_BTPD).unflatten(-1, (3 * self.heads, -1))
        qk = rotate(qkv[..., : 2 * self.heads, :], table)
        q, k = qk.split(self.heads, dim=-2)
        return q, k, qkv[..., 2 * self.heads :, :].float()


class SpatialAttention(Attention):
    """Every token looks at all tokens of its own frame."""

    def forward(self, x_BTPD: Tensor, table_Pd: Tensor) -> Tensor:
        b, t, p, d = x_BTPD.shape
        q, k, v = (y.flatten(0, 1).transpose(1, 2) for y in self._rotated(x_BTPD, table_Pd[:, None]))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(out.transpose(1, 2).reshape(b, t, p, d))


class TemporalAttention(Attention):
    """Every token looks at its own place in its own and all earlier frames."""

    def forward(self, x_BTPD: Tensor, table_Td: Tensor, cache: TemporalCache | None, layer: int) -> Tensor:
        b, t, p, d = x_BTPD.shape
        q, k, v = (y.permute(0, 2, 3, 1, 4) for y in self._rotated(x_BTPD, table_Td[:, None, None]))
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        mask = causal_mask(t, k.shape[3], x_BTPD.device) if t > 1 else None
        q, k, v = (y.flatten(0, 1) for y in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(out.reshape(b, p, self.heads, t, -1).permute(0, 3, 1, 2, 4).reshape(b, t, p, d))


class Block(nn.Module):
    """Attention and MLP, each modulated (shift, scale, gate) by the frame's condition vector (adaLN-zero)."""

    def __init__(self, dim: int, attention: Attention) -> None:
        super().__init__()
        self.attn = attention
        self.ffwd = nn.Sequential(Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), Linear(4 * dim, dim))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(dim, 6 * dim))

    def forward(self, x_BTPD: Tensor, c_BTD: Tensor, *attention_args: object) -> Tensor:
        m = self.adaLN_modulation(c_BTD).float().unsqueeze(2)
        shift1, scale1, gate1, shift2, scale2, gate2 = m.chunk(6, dim=-1)
        x = torch.addcmul(x_BTPD, gate1, self.attn(_modulated(x_BTPD, shift1, scale1), *attention_args).float())
        return torch.addcmul(x, gate2, self.ffwd(_modulated(x, shift2, scale2)).float())


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale)


class Layer(nn.Module):
    """One spatial block, then one temporal block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.s_block = Block(dim, SpatialAttention(dim, heads))
        self.t_block = Block(dim, TemporalAttention(dim, heads))

    def forward(
        self,
        x_BTPD: Tensor,
        c_BTD: Tensor,
        spatial_Pd: Tensor,
        temporal_Td: Tensor,
        cache: TemporalCache | None,
        index: int,
    ) -> Tensor:
        x_BTPD = self.s_block(x_BTPD, c_BTD, spatial_Pd)
        return self.t_block(x_BTPD, c_BTD, temporal_Td, cache, index)


class FinalLayer(nn.Module):
    """Modulated norm and the map from a token to the pixels of its patch."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x_BTPD: Tensor, c_BTD: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c_BTD).unsqueeze(2).chunk(2, dim=-1)
        return self.linear(_modulated(x_BTPD, shift, scale))


class DiT(nn.Module):
    """Predicts v, x0 or a flow (see `schedule`) for every frame of a clip, given noisy frames and actions."""

    @dataclass(frozen=True)
    class Config:
        channels: int = 3
        """Latent channels C."""
        patch_size: int = 8
        """Side of a square patch, latent pixels."""
        dim: int = 192
        """Token width D."""
        layers: int = 4
        """Layers of one spatial and one temporal block each."""
        heads: int = 6
        """Attention heads; D / heads must be a multiple of 4 (two rotary axes of pairs)."""
        action_dim: int = 10
        """Model action width A."""
        rope: str = "standard"
        """Spatial rotary positions: standard or pixel."""

    def __init__(self, config: Config, generator: torch.Generator | None) -> None:
        """Weights drawn from `generator`; without one they are left undefined, to be loaded."""
        super().__init__()
        self.config = config
        # PyTorch's own initialisation draws from the global generator; on the meta device it does nothing.
        with torch.device("meta"):
            self._build(config)
        self.to_empty(device="cpu")
        self._spatial_tables: dict[tuple[int, int, str], Tensor] = {}
        if generator is not None:
            self._initialise(generator)

    def _build(self, config: Config) -> None:
        dim, p = config.dim, config.patch_size
        self.x_proj = PatchEmbedding(config.channels, dim, kernel_size=p, stride=p)
        self.timestep_mlp = nn.Sequential(nn.Linear(TIMESTEP_FEATURES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.action_embedder = nn.Linear(config.action_dim, dim)
        self.blocks = nn.ModuleList(Layer(dim, config.heads) for _ in range(config.layers))
        self.final_layer = FinalLayer(dim, p * p * config.channels)

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Multiply the blocks' linear maps in this dtype; everything else stays float32."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.compute_dtype = dtype

    def forward(
        self,
        x_BTHWC: Tensor,
        t_BT: Tensor,
        actions_BTA: Tensor,
        cache: TemporalCache | None = None,
        commit: int = 0,
    ) -> Tensor:
        """Output (B, T, H, W, C) for frames at diffusion timesteps `t_BT`, each with its slot's action.

        With a cache, the T frames follow the committed ones, and the first `commit` of them become committed.
        """
        config = self.config
        b, t, h, w, _ = x_BTHWC.shape
        rows, columns = h // config.patch_size, w // config.patch_size
        start = 0
        if cache is not None:
            cache.reserve(t)
            start = cache.position
        spatial = self._spatial_table(rows, columns, x_BTHWC.device)
        positions = torch.arange(start, start + t, device=x_BTHWC.device)
        temporal = temporal_table(positions, config.dim // config.heads)

        tokens = self.x_proj(x_BTHWC)
        condition = self.timestep_mlp(timestep_features(t_BT)) + self.action_embedder(actions_BTA)
        for index, layer in enumerate(self.blocks):
            tokens = layer(tokens, condition, spatial, temporal, cache, index)
        if cache is not None:
            cache.commit(commit)
        patches = self.final_layer(tokens, condition)
        patches = patches.reshape(b, t, rows, columns, config.patch_size, config.patch_size, config.channels)
        return patches.permute(0, 1, 2, 4, 3, 5, 6).reshape(b, t, h, w, config.channels)

    def _spatial_table(self, rows: int, columns: int, device: torch.device) -> Tensor:
        key = (rows, columns, str(device))
        if key not in self._spatial_tables:
            head_dim = self.config.dim // self.config.heads
            self._spatial_tables[key] = spatial_table(rows, columns, head_dim, self.config.rope).to(device)
        return self._spatial_tables[key]

    def _initialise(self, generator: torch.Generator) -> None:
        zeroed: list[nn.Module] = [self.final_layer.linear]
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                with torch.no_grad():
                    nn.init.xavier_uniform_(module.weight.flatten(1), generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, (Block, FinalLayer)):
                zeroed.append(module.adaLN_modulation)
        for weight in (p for p in self.timestep_mlp.parameters() if p.ndim == 2):
            nn.init.normal_(weight, std=0.02, generator=generator)
        for parameter in (p for module in zeroed for p in module.parameters()):
            nn.init.zeros_(parameter)
