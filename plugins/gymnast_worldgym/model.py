"""The diffusion transformer of WorldGym: attention inside frames, causal attention over time, adaptive norms.

Source: world-model-eval (arXiv 2506.00613); DiT (arXiv 2212.09748), diffusion forcing (arXiv 2407.01392).
Parameter names are those of the published checkpoints.

Shapes: B clips, T frames, H W C latent pixels (channels last), P tokens a frame, D width, A action
dimensions, N heads, d head width, V cameras, whose views stand below each other in a frame (`views`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gymnast_worldgym.blocks import Block, Layer, Linear, Step, modulated
from gymnast_worldgym.cache import Span, TemporalCache
from gymnast_worldgym.compiling import require_compiler
from gymnast_worldgym.quantities import ActionWidth, Channels, Heads, Layers, Patch, PoseWidth, Rope, Views, Width
from gymnast_worldgym.rope import spatial_table, temporal_table
from gymnast_worldgym.views import apart, tall

TIMESTEP_FEATURES = 256
POSE_WAVES = 8
"""Wavelengths by which poses are told apart: 1/2, 1, ... 64 model units."""
STAYING = -2.0
"""Added to the logits of `change`: an untrained network repaints an eighth (sigmoid(-2) = .12) of every pixel."""


WAY, STILL = 4.0, 0.5
"""Pixels that an output of 1 moves by, and those of a way of which a tenth is left: interpolating between pixels blurs,
and what stands still would be blurred again with every frame."""


def transported(x_BTHWC: Tensor, way_BTHW2: Tensor) -> Tensor:
    """Frames whose pixels are taken from `way` (right, down, pixels) off, interpolated; beyond the edge, the edge's."""
    b, t, h, w, _ = x_BTHWC.shape
    place = [(2 * torch.arange(size, device=x_BTHWC.device) + 1) / size - 1 for size in (w, h)]
    centre_HW2 = torch.stack(torch.meshgrid(*place, indexing="xy"), dim=-1)
    grid = centre_HW2 + way_BTHW2 * way_BTHW2.new_tensor([2 / w, 2 / h])
    frames_NCHW = x_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
    moved = F.grid_sample(frames_NCHW, grid.flatten(0, 1), padding_mode="border", align_corners=False)
    return moved.permute(0, 2, 3, 1).unflatten(0, (b, t))


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


def pose_features(pose_BTP: Tensor) -> Tensor:
    """(B, T, 2·P·8): cosines, then sines of each number, of wavelengths from 1/2 to 64.

    Attention compares frames by products: of these, the products are largest where the poses are equal.
    """
    waves = 2 * math.pi / 2.0 ** torch.arange(-1, POSE_WAVES - 1, device=pose_BTP.device)
    angles = (pose_BTP.float()[..., None] * waves).flatten(-2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class FinalLayer(nn.Module):
    """Modulated norm and the map from a token to the pixels of its patch."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x_BTPD: Tensor, c_BTD: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c_BTD).unsqueeze(2).chunk(2, dim=-1)
        return self.linear(modulated(x_BTPD, shift, scale))


class DiT(nn.Module):
    """Predicts v, x0 or a flow (see `schedule`) for every frame of a clip, given noisy frames and actions."""

    @dataclass(frozen=True)
    class Config:
        channels: Channels = 3
        """Latent channels C."""
        patch_size: Patch = 8
        """Side of a square patch, latent pixels."""
        dim: Width = 192
        """Token width D."""
        layers: Layers = 4
        """Layers of one spatial and one temporal block each."""
        heads: Heads = 6
        """Attention heads; D / heads must be a multiple of 4 (two rotary axes of pairs)."""
        action_dim: ActionWidth = 10
        """Model action width A."""
        rope: Rope = "standard"
        """Spatial rotary positions: standard or pixel."""
        change: bool = False
        """Predict what changes against the frame before: where nothing does, the output is that frame itself.

        Every frame then comes with its predecessor, finished, as further channels (..., 2·C), which the network sees,
        moves and paints on: output = (1 - m) · moved + m · new, where `moved` is the frame before with each pixel taken
        from some way off. For each pixel it predicts this way, the colour `new`, and the share m in [0, 1] that is
        repainted. A room that stands still costs neither capacity nor denoising steps, and what moves keeps its looks.
        (Transformed pixels: Finn et al., arXiv 1605.07157.)
        """
        views: Views = 1
        """Cameras V whose views are predicted together: tokens of all views attend to each other inside a frame, each
        with its camera's embedding and positions as in a frame of its own. One view has no embedding. (Joint
        prediction of views: Ctrl-World, arXiv 2510.10125.)"""
        pose_dim: PoseWidth = 0
        """Numbers P of a frame's pose, where past ones are remembered by it (`pose_memory`): a frame then comes with
        A + P + 1 numbers in place of its action; 0: no memory."""

    def __init__(self, config: Config, generator: torch.Generator | None) -> None:
        """Weights drawn from `generator`; without one they are left undefined, to be loaded."""
        super().__init__()
        self.config = config
        # PyTorch's own initialisation draws from the global generator; on the meta device it does nothing.
        with torch.device("meta"):
            self._build(config)
        self.to_empty(device="cpu")
        self._linears = [module for module in self.modules() if isinstance(module, Linear)]
        self._compiled = False
        self._spatial_tables: dict[tuple[int, int, str], Tensor] = {}
        if generator is not None:
            self._initialise(generator)

    def _build(self, config: Config) -> None:
        dim, p = config.dim, config.patch_size
        self.x_proj = PatchEmbedding(config.channels, dim, kernel_size=p, stride=p)
        if config.change:
            self.previous_proj = PatchEmbedding(config.channels, dim, kernel_size=p, stride=p, bias=False)
        if config.views > 1:
            self.camera_embedding = nn.Embedding(config.views, dim)
        self.timestep_mlp = nn.Sequential(nn.Linear(TIMESTEP_FEATURES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.action_embedder = nn.Linear(config.action_dim, dim)
        if config.pose_dim:
            self.pose_embedder = nn.Linear(2 * POSE_WAVES * config.pose_dim + 1, dim)
        self.blocks = nn.ModuleList(Layer(dim, config.heads) for _ in range(config.layers))
        self.final_layer = FinalLayer(dim, p * p * (config.channels + (3 if config.change else 0)))

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Multiply the blocks' linear maps in this dtype; everything else stays float32."""
        for module in self._linears:
            module.compute_dtype = dtype

    def set_onednn(self, allowed: bool) -> None:
        """Whether CPU passes without gradients may multiply with oneDNN (the default), see `kernels.linear`."""
        for module in self._linears:
            module.onednn = allowed

    def compile_passes(self) -> None:
        """Compile the parts of `extend` around the cache; raises `ConfigError` where there is no compiler."""
        require_compiler(next(self.parameters()).device)
        self._compiled = True

    def _round_weights(self) -> None:
        for module in self._linears:
            module.round_weights()

    def forward(self, x_BTHWC: Tensor, t_BT: Tensor, actions_BTA: Tensor) -> Tensor:
        """Output (B, T, H, W, C) for whole clips at diffusion timesteps `t_BT`, each frame with its slot's action.

        With `change`, the frames have 2·C channels: their own, then those of the frame before.
        """
        if not torch.is_grad_enabled():
            self._round_weights()
        spatial, temporal = self._tables(x_BTHWC, Span(0, x_BTHWC.shape[1], 0, x_BTHWC.shape[1]))
        tokens, condition = self._embedded(x_BTHWC), self._condition(t_BT, actions_BTA)
        for layer in self.blocks:
            tokens = layer(tokens, condition, spatial, temporal)
        return self._painted(self.final_layer(tokens, condition), x_BTHWC)

    @torch.no_grad()
    def extend(self, x_BTHWC: Tensor, t_BT: Tensor, actions_BTA: Tensor, cache: TemporalCache, commit: int) -> Tensor:
        """`forward` of the frames that follow the cache's committed ones, without the first `commit`'s output.

        Those first frames become committed themselves: what the others need of them is kept, and nothing else
        is computed of them.
        """
        self._round_weights()
        step = Step(cache, cache.span(x_BTHWC.shape[1]), commit, self._compiled)
        spatial, temporal = self._tables(x_BTHWC, step.span)
        tokens, condition = self._embedded(x_BTHWC[:, cache.remembered :]), self._condition(t_BT, actions_BTA)
        for index, layer in enumerate(self.blocks):
            last = index == len(self.blocks) - 1
            tokens = cast(Layer, layer).extend(tokens, condition, spatial, temporal, step, index, last)
        cache.commit(commit)
        return self._painted(self.final_layer(tokens, condition[:, commit:]), x_BTHWC[:, commit:])

    def _embedded(self, x_BTHWC: Tensor) -> Tensor:
        if self.config.change:
            own, previous = x_BTHWC.split(self.config.channels, dim=-1)
            tokens = self.x_proj(own) + self.previous_proj(previous)
        else:
            tokens = self.x_proj(x_BTHWC)
        if self.config.views == 1:
            return tokens
        each = tokens.shape[2] // self.config.views
        return tokens + self.camera_embedding.weight.repeat_interleave(each, dim=0)

    def _condition(self, t_BT: Tensor, actions_BTA: Tensor) -> Tensor:
        time_BTD = self.timestep_mlp(timestep_features(t_BT))
        if not self.config.pose_dim:
            return time_BTD + self.action_embedder(actions_BTA)
        action, pose, is_remembered = actions_BTA.split([self.config.action_dim, self.config.pose_dim, 1], dim=-1)
        moved = torch.where(is_remembered > 0, 0.0, self.action_embedder(action))
        return time_BTD + moved + self.pose_embedder(torch.cat([pose_features(pose), is_remembered], dim=-1))

    def _painted(self, patches_BTPO: Tensor, x_BTHWC: Tensor) -> Tensor:
        """The output's pixels, with `change` on those of the frames before."""
        pixels = self._unpatched(patches_BTPO, x_BTHWC)
        if not self.config.change:
            return pixels
        new, logit, way = pixels.split([self.config.channels, 1, 2], dim=-1)
        way = WAY * way
        moved = self._moved(x_BTHWC[..., self.config.channels :], way - 0.9 * way.clamp(-STILL, STILL))
        return torch.lerp(moved, new, (logit + STAYING).sigmoid())

    def _moved(self, x_BTHWC: Tensor, way_BTHW2: Tensor) -> Tensor:
        """`transported` within each view."""
        views = self.config.views
        frames, ways = (apart(part, views).flatten(1, 2) for part in (x_BTHWC, way_BTHW2))
        return tall(transported(frames, ways).unflatten(1, (-1, views)))

    def _unpatched(self, patches_BTPO: Tensor, like_BTHWC: Tensor) -> Tensor:
        b, t = patches_BTPO.shape[:2]
        _, _, h, w, _ = like_BTHWC.shape
        p = self.config.patch_size
        c = patches_BTPO.shape[-1] // (p * p)
        return patches_BTPO.reshape(b, t, h // p, w // p, p, p, c).permute(0, 1, 2, 4, 3, 5, 6).reshape(b, t, h, w, c)

    def _tables(self, x_BTHWC: Tensor, span: Span) -> tuple[Tensor, Tensor]:
        _, _, h, w, _ = x_BTHWC.shape
        positions = torch.arange(span.first, span.first + span.frames, device=x_BTHWC.device)
        rows = h // self.config.patch_size // self.config.views
        spatial = self._spatial_table(rows, w // self.config.patch_size, x_BTHWC.device)
        return spatial, temporal_table(positions, self.config.dim // self.config.heads)

    def _spatial_table(self, rows: int, columns: int, device: torch.device) -> Tensor:
        key = (rows, columns, str(device))
        if key not in self._spatial_tables:
            head_dim = self.config.dim // self.config.heads
            with torch.inference_mode(False):  # the table outlives this pass, and training multiplies by it, too
                view = spatial_table(rows, columns, head_dim, self.config.rope)
                self._spatial_tables[key] = view.repeat(self.config.views, 1).to(device)
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
        if self.config.views > 1:
            nn.init.normal_(self.camera_embedding.weight, std=0.02, generator=generator)
        for weight in (p for p in self.timestep_mlp.parameters() if p.ndim == 2):
            nn.init.normal_(weight, std=0.02, generator=generator)
        for parameter in (p for module in zeroed for p in module.parameters()):
            nn.init.zeros_(parameter)
