"""WorldGym as a Gymnast world model: https://arxiv.org/abs/2506.00613."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Loss, WorldModel
from gymnast_core.types import Episode, Task
from gymnast_worldgym import checkpoint as checkpoints
from gymnast_worldgym.actions import ActionSpace
from gymnast_worldgym.architecture import Architecture, Sampling, as_dict, merge
from gymnast_worldgym.codec import CODECS
from gymnast_worldgym.model import DiT
from gymnast_worldgym.sampling import Sampler
from gymnast_worldgym.schedule import noise_process
from gymnast_worldgym.training import PixelWeights, TrainingConfig, diffusion_loss, draw_clips
from gymnast_worldgym.validation import open_loop_quality


@dataclass
class State:
    """B imagined episodes."""

    sampler: Sampler
    generator: torch.Generator
    batch: int

    def __len__(self) -> int:
        return self.batch


class WorldGym(WorldModel):
    """A diffusion transformer that imagines the next frames from past frames and actions."""

    @dataclass(frozen=True)
    class Config:
        """Fields at null come from the checkpoint's config.json, or else from `architecture`."""

        checkpoint: str | None = None
        """Folder written by `gymnast fit`, .safetensors file or published .pt file; null: random weights."""
        device: str = "auto"
        """torch device; auto: cuda where there is one."""
        compute_dtype: str = "float32"
        """Dtype of the blocks' matrix products: float32, bfloat16, or auto: bfloat16 where it is fast."""
        seed: int = 0
        """Seed of the initial weights."""

        image_size: list[int] | None = None
        """Frame height and width, pixels."""
        channels: int | None = None
        """Latent channels."""
        patch_size: int | None = None
        """Side of a patch, latent pixels."""
        dim: int | None = None
        """Width of the transformer."""
        layers: int | None = None
        """Layers of one spatial and one temporal block."""
        heads: int | None = None
        """Attention heads."""
        action_dim: int | None = None
        """Width of the model's actions; its last component flags the null action."""
        window: int | None = None
        """Frames the transformer sees at once, context and new ones together."""
        rope: str | None = None
        """Spatial positions: standard, or pixel (the published Bridge checkpoint)."""
        prediction: str | None = None
        """What the network predicts: v (published), x0 (best for small models on pixels) or flow."""
        codec: str | None = None
        """Latents: pixels."""
        robot_action_dim: int | None = None
        """Width of the robot's actions; null takes any width up to action_dim."""
        action_scale: list[float] | None = None
        """Model units per robot unit, one for all or one per robot action dimension."""
        action_offset: list[float] | None = None
        """Added after scaling, model units."""
        action_alignment: str | None = None
        """Training: frame i goes with the action that led to it (previous) or the one chosen at it (same)."""

        denoising_steps: int | None = None
        """Sampler steps per frame."""
        guidance: float | None = None
        """Classifier-free guidance scale on the action; 1 is none."""
        stabilization_level: int | None = None
        """Diffusion timestep at which context frames are shown."""
        horizon: int | None = None
        """Frames denoised together; null: a whole action chunk."""
        streaming: bool | None = None
        """Keep features across the sliding of the window: faster, no longer exact once it slides."""

        clean_fraction: float = 0.5
        """Training: share of frames that are nearly clean."""
        pure_noise_fraction: float = 0.0
        """Training: share of the other frames that are pure noise."""
        action_dropout: float = 0.0
        """Training: probability that a clip is trained without its actions."""
        pixel_weights: PixelWeights | None = None
        """Training: weights on objects and motion; null weighs all pixels equally."""

    def __init__(self, config: Config) -> None:
        self.config = config
        if config.compute_dtype not in {"float32", "bfloat16", "auto"}:
            raise ConfigError(f"compute_dtype is {config.compute_dtype!r}; choose auto, float32 or bfloat16.")
        saved = checkpoints.read(config.checkpoint) if config.checkpoint else None
        stored = (saved.config if saved else None) or {}
        self.architecture = merge(Architecture, config, stored.get("architecture"))
        self.sampling = merge(Sampling, config, stored.get("sampling"))
        if config.pixel_weights is not None and self.architecture.codec != "pixels":
            raise ConfigError("pixel_weights needs codec: pixels.")
        self.codec = CODECS[self.architecture.codec]()
        self.actions = ActionSpace(self.architecture)
        self.image_size = self.architecture.image_size[0]
        self.action_dim = self.actions.robot_width or self.actions.width
        clip = self.codec.clip if self.architecture.prediction == "x0" else None
        self.process = noise_process(self.architecture.prediction, self.sampling.stabilization_level, clip)
        self.training = TrainingConfig(
            config.clean_fraction, config.pure_noise_fraction, config.action_dropout, config.pixel_weights
        )
        initial = None if saved else torch.Generator().manual_seed(config.seed)
        self.network = DiT(self.architecture.network(), initial)
        if saved is not None:
            checkpoints.load_into(self.network, saved)
        self.network.to(_device(config.device)).eval()
        self.network.set_compute_dtype(_compute_dtype(config.compute_dtype, self.device))

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return next(self.network.parameters()).device

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> State:
        self._check_tasks(tasks)
        frames = torch.stack([task.frames_THWC for task in tasks]).to(self.device)
        moves = [torch.zeros(0, self.action_dim) if task.actions_TA is None else task.actions_TA for task in tasks]
        # The rollout always feeds the action that leads to a frame, also to models trained with the other
        # alignment: their published evaluation does the same.
        slots = torch.stack([self.actions.slots(move.cpu(), 0, frames.shape[1], "previous") for move in moves])
        sampler = Sampler(
            self.network,
            self.process,
            self.sampling,
            self.architecture.window,
            self.actions.null,
            self.codec.encode(frames),
            slots.to(self.device),
        )
        return State(sampler, generator or torch.Generator().manual_seed(self.config.seed), len(tasks))

    @torch.no_grad()
    def step(self, state: State, actions_BLA: Tensor) -> Tensor:
        if actions_BLA.ndim != 3 or actions_BLA.shape[0] != len(state) or actions_BLA.shape[1] < 1:
            raise DataError(f"Expected actions (B={len(state)}, L >= 1, A), got {tuple(actions_BLA.shape)}.")
        slots = self.actions.to_model(actions_BLA).to(self.device)
        horizon = min(self.sampling.horizon or slots.shape[1], self.architecture.window - 1)
        frames = []
        for chunk_BLA in slots.split(horizon, dim=1):
            noise = self._noise(state, chunk_BLA.shape[1])
            frames.append(self.codec.decode(state.sampler.extend(chunk_BLA, noise)))
        return torch.cat(frames, dim=1)

    def module(self) -> DiT:
        return self.network

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> Loss:
        for episode in episodes:
            self._check_frames(episode.frames_THWC, f"Episode {episode.id!r}")
        clips = draw_clips(episodes, self.architecture.window, self.actions, generator)
        return diffusion_loss(self.network, self.process, self.codec, self.actions, clips, self.training, generator)

    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        return open_loop_quality(self, episodes, generator)

    def save(self, directory: Path) -> None:
        config: dict[str, Any] = {
            "architecture": as_dict(self.architecture),
            "sampling": as_dict(self.sampling),
        }
        checkpoints.write(Path(directory), self.network, config)

    def _noise(self, state: State, frames: int) -> Tensor:
        height, width = state.sampler.latents_BTHWC.shape[2:4]
        shape = (len(state), frames, height, width, self.architecture.channels)
        return torch.randn(shape, generator=state.generator, device=state.generator.device).to(self.device)

    def _check_tasks(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            raise DataError("No tasks to start from.")
        length = tasks[0].frames_THWC.shape[0]
        for task in tasks:
            self._check_frames(task.frames_THWC, f"Task {task.id!r}")
            moves = 0 if task.actions_TA is None else task.actions_TA.shape[0]
            if task.frames_THWC.shape[0] != length or moves not in {0, length - 1}:
                raise DataError(
                    f"Task {task.id!r} has {task.frames_THWC.shape[0]} context frames and {moves} actions; "
                    f"the tasks of a batch need equally many frames ({length}) and one action fewer."
                )

    def _check_frames(self, frames: Tensor, owner: str) -> None:
        expected = (*self.architecture.image_size, 3)
        if (
            frames.dtype != torch.uint8
            or frames.ndim != 4
            or frames.shape[0] < 1
            or tuple(frames.shape[1:]) != expected
        ):
            found = f"{frames.dtype} {tuple(frames.shape)}"
            raise DataError(
                f"{owner}: the world model takes uint8 frames (T, {', '.join(map(str, expected))}), "
                f"got {found}. Choose frames of that size; for tasks, see tasks.args.image_size."
            )


def _compute_dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return getattr(torch, name)
    # Without AVX512-BF16, a CPU emulates bfloat16 products and is slower than in float32.
    on_cpu = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if on_cpu or on_gpu else torch.float32


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ConfigError(f"No torch device {name!r}. Use auto, cpu, cuda or cuda:0.") from None
