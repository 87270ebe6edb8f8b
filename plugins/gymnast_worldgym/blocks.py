"""The blocks of the transformer: attention inside a frame, or causally over time, then an MLP, with adaptive norms.

Each has one path for whole clips and one for frames that follow those in a cache.

Shapes: B clips, T frames of a pass, P tokens a frame, D width, N heads, S slots (frames), d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gymnast_worldgym.cache import Span, TemporalCache
from gymnast_worldgym.compiling import compiled
from gymnast_worldgym.kernels import attend_over_time, linear
from gymnast_worldgym.rope import rotate

NORM_EPS = 1e-6

Result = TypeVar("Result")


class Linear(nn.Linear):
    """A linear map that multiplies in `compute_dtype` and returns it; parameters stay float32."""

    compute_dtype: torch.dtype = torch.float32
    onednn: bool = True
    """Whether `kernels.linear` may use oneDNN."""
    _rounded: tuple[Tensor, Tensor | None] | None = None
    _rounded_from: object = None

    def round_weights(self) -> None:
        """Keep the weights in `compute_dtype` for passes without gradients; again when they have changed."""
        if self.compute_dtype is torch.float32:
            return
        state = [self.compute_dtype, *((p.data_ptr(), p._version) for p in self.parameters())]
        if state != self._rounded_from:
            with torch.inference_mode(False), torch.no_grad():
                self._rounded, self._rounded_from = self._cast(), state

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        if self.compute_dtype is torch.float32:
            return linear(x, self.weight, self.bias, gelu, self.onednn)
        rounded = None if torch.is_grad_enabled() else self._rounded
        weight, bias = rounded or self._cast()
        return linear(x.to(self.compute_dtype), weight, bias, gelu, self.onednn)

    def _cast(self) -> tuple[Tensor, Tensor | None]:
        return self.weight.to(self.compute_dtype), None if self.bias is None else self.bias.to(self.compute_dtype)


class FeedForward(nn.Sequential):
    """D to 4D, tanh-GELU, and back."""

    def __init__(self, dim: int) -> None:
        super().__init__(Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self[2](self[0](x, gelu=True))


class Attention(nn.Module):
    """Multi-head attention with rotary positions; subclasses say over which axis."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv_proj = Linear(dim, 3 * dim, bias=False)
        self.out_proj = Linear(dim, dim)

    def merge(self, heads_BPNTd: Tensor) -> Tensor:
        """(B, T, P, D) from the heads' outputs."""
        return self.out_proj(heads_BPNTd.permute(0, 3, 1, 2, 4).flatten(-2))

    def project(self, x_BTPD: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys and values, (B, T, P, N, d); float32 on a CPU."""
        qkv = self.qkv_proj(x_BTPD).unflatten(-1, (3 * self.heads, -1))
        qk = rotate(qkv[..., : 2 * self.heads, :], table)
        # Half precision saves memory traffic on a GPU; a CPU would only convert back and forth.
        dtype = torch.float32 if x_BTPD.device.type == "cpu" else self.qkv_proj.compute_dtype
        q, k = qk.to(dtype).split(self.heads, dim=-2)
        return q, k, qkv[..., 2 * self.heads :, :].to(dtype)


class SpatialAttention(Attention):
    """Every token looks at all tokens of its own frame."""

    def forward(self, x_BTPD: Tensor, table_Pd: Tensor) -> Tensor:
        b, t, p, d = x_BTPD.shape
        q, k, v = (y.flatten(0, 1).transpose(1, 2) for y in self.project(x_BTPD, table_Pd[:, None]))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(out.transpose(1, 2).reshape(b, t, p, d))


class TemporalAttention(Attention):
    """Every token looks at its own place in its own and all earlier frames."""

    def forward(self, x_BTPD: Tensor, table_Td: Tensor) -> Tensor:
        q, k, v = (y.permute(0, 2, 3, 1, 4) for y in self.project(x_BTPD, table_Td[:, None, None]))
        frames = q.shape[3]
        return self.merge(attend_over_time(q, k, v, Span(0, frames, 0, frames).mask(frames, q.device)))


class Block(nn.Module):
    """Attention and MLP, each modulated (shift, scale, gate) by the frame's condition vector (adaLN-zero)."""

    def __init__(self, dim: int, attention: Attention) -> None:
        super().__init__()
        self.attn = attention
        self.ffwd = FeedForward(dim)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(dim, 6 * dim))

    def forward(self, x_BTPD: Tensor, c_BTD: Tensor, table: Tensor) -> Tensor:
        m = self.modulation(c_BTD)
        return self.leave(x_BTPD, self.attn(self.enter(x_BTPD, m), table), m)

    def modulation(self, c_BTD: Tensor) -> Tensor:
        """float32 (B, T, 6, 1, D): shift, scale and gate of the attention, then of the MLP."""
        return self.adaLN_modulation(c_BTD).float().unflatten(-1, (6, 1, -1))

    def enter(self, x_BTPD: Tensor, m_BT61D: Tensor) -> Tensor:
        """What the attention sees."""
        return modulated(x_BTPD, m_BT61D[:, :, 0], m_BT61D[:, :, 1])

    def leave(self, x_BTPD: Tensor, attended_BTPD: Tensor, m_BT61D: Tensor) -> Tensor:
        """The block's output, from its input and its attention's output."""
        _, _, gate1, shift2, scale2, gate2 = m_BT61D.unbind(2)
        x = torch.addcmul(x_BTPD, gate1, attended_BTPD.float())
        return torch.addcmul(x, gate2, self.ffwd(modulated(x, shift2, scale2)).float())


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without affine, scaled and shifted by the condition."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale)


@dataclass(frozen=True)
class Step:
    """One pass with a cache: the first `commit` of its frames are clean and stay."""

    cache: TemporalCache
    span: Span
    commit: int
    compiled: bool

    def call(self, function: Callable[..., Result], *args: object) -> Result:
        return (compiled(function) if self.compiled else function)(*args)


class Layer(nn.Module):
    """One spatial block, then one temporal block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.s_block = Block(dim, SpatialAttention(dim, heads))
        self.t_block = Block(dim, TemporalAttention(dim, heads))

    @property
    def temporal(self) -> TemporalAttention:
        return cast(TemporalAttention, self.t_block.attn)

    def forward(self, x_BTPD: Tensor, c_BTD: Tensor, spatial_Pd: Tensor, temporal_Td: Tensor) -> Tensor:
        return self.t_block(self.s_block(x_BTPD, c_BTD, spatial_Pd), c_BTD, temporal_Td)

    def extend(
        self, x_BTPD: Tensor, c_BTD: Tensor, spatial_Pd: Tensor, temporal_Td: Tensor, step: Step, index: int, last: bool
    ) -> Tensor:
        """The same for the frames of a pass, given the cache; in the last layer only of those that need an output."""
        known = step.cache.remembered if index == 0 else 0
        x = step.call(_spatial, self.s_block, x_BTPD, c_BTD[:, known:], spatial_Pd)
        m = self.t_block.modulation(c_BTD)
        q, k, v = step.call(_project, self.t_block, x, m[:, known:], temporal_Td[known:, None, None])
        keys, values = step.cache.extend(index, step.span, k, v)
        if index == 0:
            x, q = step.cache.remember(step.span, step.commit, x, q)
        if last:
            x, q, m = x[:, step.commit :], q[:, step.commit :], m[:, step.commit :]
        if x.shape[1] == 0:
            return x
        heads = attend_over_time(q.permute(0, 2, 3, 1, 4), keys, values, step.span.mask(q.shape[1], q.device))
        return step.call(_leave, self.t_block, x, heads, m)


def _spatial(block: Block, x_BTPD: Tensor, c_BTD: Tensor, table_Pd: Tensor) -> Tensor:
    return block(x_BTPD, c_BTD, table_Pd)


def _project(block: Block, x_BTPD: Tensor, m_BT61D: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return block.attn.project(block.enter(x_BTPD, m_BT61D), table)


def _leave(block: Block, x_BTPD: Tensor, heads_BPNTd: Tensor, m_BT61D: Tensor) -> Tensor:
    return block.leave(x_BTPD, block.attn.merge(heads_BPNTd), m_BT61D)
