"""The two vision towers of OpenVLA (DINOv2 and SigLIP), with the parameter names of published checkpoints.

Both are plain pre-norm vision transformers. A published checkpoint names its tensors as timm does (LayerScale
excepted: `scale_factor`), with queries, keys and values in one matrix. The modules here carry exactly those
names, so that loading and saving rename nothing, and weights that no forward pass uses (the last block, the
final norm, SigLIP's pooling head) survive a round trip. FiLM (arXiv 1709.07871), which OpenVLA-OFT adds for ALOHA,
scales and shifts the features of each block by what the instruction says.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gymnast_openvla_oft.attention import AUTO, attend

NORM_EPS = 1e-6


@dataclass(frozen=True)
class TowerShape:
    """What a tower is made of."""

    image_size: int
    """Pixels a side."""
    patch_size: int
    """Pixels a side."""
    width: int
    depth: int
    """Blocks, including the last one, which is present but unused."""
    heads: int
    mlp_width: int
    registers: int = 0
    """Register tokens; a tower that has any also has a class token and LayerScale (DINOv2)."""
    pooling_head: bool = False
    """Whether SigLIP's attention pooling head is present (never used here)."""
    film_width: int = 0
    """Width of the language embedding that modulates the blocks; 0 is a tower without FiLM."""

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


class PatchEmbedding(nn.Module):
    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.proj(pixels_BCHW).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.kernel = "sdpa"
        """AUTO chooses by device and length."""
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BPE: Tensor) -> Tensor:
        batch, length, width = x_BPE.shape
        qkv = self.qkv(x_BPE).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = attend(query, key, value) if self.kernel == AUTO else F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale_factor


class Block(nn.Module):
    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        scaled = shape.registers > 0
        self.norm1 = nn.LayerNorm(shape.width, eps=NORM_EPS)
        self.attn = Attention(shape.width, shape.heads)
        self.ls1 = LayerScale(shape.width) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(shape.width, eps=NORM_EPS)
        self.mlp = MLP(shape.width, shape.mlp_width)
        self.ls2 = LayerScale(shape.width) if scaled else nn.Identity()
        if shape.film_width:
            self.scale = nn.Linear(shape.film_width, shape.width)
            self.shift = nn.Linear(shape.film_width, shape.width)

    def forward(self, x_BPE: Tensor, language_BE: Tensor | None = None) -> Tensor:
        x_BPE = x_BPE + self.ls1(self.attn(self.norm1(x_BPE)))
        if language_BE is not None:
            x_BPE = x_BPE * (1 + self.scale(language_BE)[:, None]) + self.shift(language_BE)[:, None]
        return x_BPE + self.ls2(self.mlp(self.norm2(x_BPE)))


class PoolingHead(nn.Module):
    """SigLIP's pooling head: policies read patches, so its weights are only carried along."""

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        width = shape.width
        self.latent = nn.Parameter(torch.zeros(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = MLP(width, shape.mlp_width)


class VisionTower(nn.Module):
    """Patch features of one tower: the output of the last block but one, without final norm or prefix."""

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(shape.patch_size, shape.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.patches, shape.width))
        self.prefix = 0
        if shape.registers:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
            self.reg_token = nn.Parameter(torch.zeros(1, shape.registers, shape.width))
            self.prefix = 1 + shape.registers
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=NORM_EPS)
        if shape.pooling_head:
            self.attn_pool = PoolingHead(shape)
        # A parameter that never gets a gradient must not want one, or distributed training waits for it.
        for name in ("norm", "attn_pool"):
            if hasattr(self, name):
                getattr(self, name).requires_grad_(False)
        self.blocks[-1].requires_grad_(False)

    def forward(self, pixels_BCHW: Tensor, language_BE: Tensor | None = None) -> Tensor:
        """Normalised float pixels (B, 3, H, W) to features (B, patches, width); a tower with FiLM needs language."""
        x_BPE = self.patch_embed(pixels_BCHW) + self.pos_embed
        if self.prefix:
            prefix_1RE = torch.cat([self.cls_token, self.reg_token], dim=1)
            x_BPE = torch.cat([prefix_1RE.expand(len(x_BPE), -1, -1), x_BPE], dim=1)
        for block in self.blocks[:-1]:
            x_BPE = block(x_BPE, language_BE)
        return x_BPE[:, self.prefix :]


class VisionBackbone(nn.Module):
    """Both towers side by side, image by image (`vision_backbone.*` of a checkpoint)."""

    def __init__(self, dino: TowerShape, siglip: TowerShape) -> None:
        super().__init__()
        self.featurizer = VisionTower(dino)
        self.fused_featurizer = VisionTower(siglip)

    def forward(self, pixels_BVCHW: Tensor, language_BE: Tensor | None = None) -> Tensor:
        """Pixels (B, V, 6, H, W), three channels a tower, to (B, V·patches, dino width + siglip width).

        `language_BE`, the mean embedding of the instruction, modulates towers with FiLM and is None for others.
        """
        batch, views = pixels_BVCHW.shape[:2]
        pixels_NCHW = pixels_BVCHW.flatten(0, 1)
        language_NE = None if language_BE is None else language_BE.repeat_interleave(views, dim=0)
        towers = ((self.featurizer, pixels_NCHW[:, :3]), (self.fused_featurizer, pixels_NCHW[:, 3:]))
        features = [tower(pixels, language_NE) for tower, pixels in towers]
        return torch.cat(features, dim=-1).reshape(batch, views * features[0].shape[1], -1)
