"""Action-conditioned Wan as a `WorldModel`: what `world_model: {name: wan}` builds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from gymnast_core.config.ranges import AnyNumber, Choices, Count, Fraction, Positive, Range, Seed, check_values
from gymnast_core.devices import find_device
from gymnast_core.errors import DataError
from gymnast_core.interfaces import WorldModel
from gymnast_core.rollouts.open_loop import Chunks, open_loop_quality
from gymnast_core.seeds import episode_generators
from gymnast_core.types import Episode, LossSum, Step, Task
from torch import Tensor

from gymnast_wan import checkpoint as checkpoints
from gymnast_wan.facts import FRAMES_A_LATENT, PATCH, Conditioning, LeadIn, Pixels, Size, Steps, presets
from gymnast_wan.flow import sample_chunk
from gymnast_wan.loading import Built, build
from gymnast_wan.training import chunk_losses, draw_clips
from gymnast_wan.window import Window, open_window

log = logging.getLogger(__name__)

Dtype = Annotated[str, Choices("float32", "bfloat16")]


@dataclass
class State:
    """B imagined episodes, each with what the next chunk depends on: a window of frames and its own noise."""

    windows: list[Window]
    generators: list[torch.Generator]


class Wan(WorldModel):
    """A video diffusion transformer that imagines the next frames from the first, the last ones and actions.

    Wan 2.x (arXiv 2503.20314) as WoVR (arXiv 2602.13977) uses it, through diffusers. A checkpoint that RLinf published:

        world_model: {name: wan, args: {preset: rlinf-libero, checkpoint: RLinf/RLinf-Wan-LIBERO-Goal, ...}}

    It imagines one camera, whatever the tasks call it, and does not read the instruction.
    """

    api_version = 2
    least_actions = FRAMES_A_LATENT

    @dataclass(frozen=True)
    class Config:
        """Fields at null come from the checkpoint's config.json or its tensors, else from the preset. What none of them
        tells is asked for, in one error."""

        preset: str | None = None
        """Settings by name, below your own and those of a checkpoint: rlinf-libero, wan2.2-ti2v-5b or tiny."""
        checkpoint: str | None = None
        """Folder written by `gymnast fit`; RLinf's weights as folder, repository, .safetensors or .pt; or Wan's own as
        diffusers saves them, to be fitted to actions. null: random weights."""
        revision: str | None = None
        """Branch, tag or commit of a repository; null is its main branch."""
        vae: str | None = None
        """Autoencoder: a folder as diffusers saves it, or a repository (its vae/), e.g.
        Wan-AI/Wan2.2-TI2V-5B-Diffusers; random: a small one with random weights, for tests."""
        vae_revision: str | None = None
        """Branch, tag or commit of that repository; null: the one that the checkpoint names, or its main branch."""
        vae_batch: Count = 8
        """Episodes whose frames the autoencoder encodes or decodes at once."""
        dtype: Dtype = "bfloat16"
        """Of the weights: float32 or bfloat16; train float32."""
        compute_dtype: Dtype | None = None
        """Of the matrix products where the weights are float32; null: as dtype."""
        device: str = "auto"
        """torch device; auto: cuda where there is one."""
        seed: Seed = 0
        """Of random weights, and of the noise where `reset` is given no generator."""

        latent_channels: Size | None = None
        """Channels of a latent: 48 in Wan 2.2 TI2V, 16 in Wan 2.1."""
        dim: Size | None = None
        """Width of the transformer."""
        layers: Size | None = None
        """Layers of the transformer."""
        heads: Size | None = None
        """Attention heads: dim / 128 in all of Wan's."""
        ffn_dim: Size | None = None
        """Width of the feed-forward layers."""
        freq_dim: Size | None = None
        """Numbers that describe a time."""
        action_dim: Size | None = None
        """Width of an action."""
        conditioning: Conditioning | None = None
        """Where actions enter: tokens (the frames attend to them), modulation (added to the time of the latent frame
        that four of them lead to) or both (WoVR)."""

        context: Count | None = None
        """Frames that the transformer is shown: the episode's first, then the last ones; 1, 5, 9, …"""
        chunk: Annotated[int, Range(least=4, most=1024)] | None = None
        """Actions imagined at once, a multiple of 4, as in training. Shorter chunks are filled up with their last
        action, and what is too much is dropped; longer ones are split."""
        lead_in: LeadIn | None = None
        """What stands before the first action, to make a group of four: zeros, or repeat (the first action)."""
        rest_action: list[AnyNumber] | None = None
        """The action that leaves the robot where it is, model units: what led to an episode's first frame."""
        action_scale: list[AnyNumber] | None = None
        """Model units per robot unit, one for all or one a dimension."""
        action_offset: list[AnyNumber] | None = None
        """Added after scaling, model units."""
        image_size: list[Pixels] | None = None
        """Height and width that frames must have, pixels; null: any that suit the autoencoder."""
        shift: Positive | None = None
        """Timestep shift of the flow, in training and sampling."""
        denoising_steps: Steps | None = None
        """Sampler steps a chunk."""

        context_noise: Annotated[float, Range(least=0, below=1)] = 0.0
        """Training: noise level of the context's latents after the first, so that faults of imagined frames do not add
        up; 0.21 in RLinf's training."""
        static_share: Fraction = 0.0
        """Training: share of the clips in which nothing moves, under the resting action; 0.05 to 0.15 in RLinf's
        training."""
        gradient_checkpointing: bool = False
        """Training: compute layers again in the backward pass, for less memory."""

    def __init__(self, config: Config) -> None:
        check_values(type(config), asdict(config))
        self.config = config
        self.device = find_device(config.device, "world_model.args.device")
        built: Built = build(config, self.device)
        self.settings, self.network, self.codec = built.settings, built.network, built.codec
        self.own_vae = built.own_vae
        architecture, conduct = built.settings.architecture, built.settings.conduct
        self.conduct = conduct
        self.action_dim = architecture.action_dim
        if conduct.image_size is not None:
            self.image_size = conduct.image_size[0]
        self.rest_A = torch.tensor(conduct.rest_action, dtype=torch.float32)
        self.scale_A = torch.tensor(conduct.action_scale, dtype=torch.float32)
        self.offset_A = torch.tensor(conduct.action_offset, dtype=torch.float32)

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        """Settings of the published checkpoints, and of a tiny one."""
        return {name: dict(values) for name, values in presets().items()}

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> State:
        """See `WorldModel.reset`. The sides of the frames must be multiples of the autoencoder's factor times 2.

        Of several context frames the first and the last ones are used; they need the actions between them.
        """
        generator = generator or torch.Generator().manual_seed(self.config.seed)
        return self.reset_apart(tasks, generators=episode_generators(generator, len(tasks)))

    def reset_apart(self, tasks: Sequence[Task], *, generators: Sequence[torch.Generator]) -> State:
        """See `WorldModel.reset_apart`."""
        if not tasks:
            raise DataError("No tasks to start from.")
        sizes = sorted({tuple(task.frames_TVHWC.shape[2:4]) for task in tasks})
        if len(sizes) > 1:
            raise DataError(f"The frames of a batch must have one size; these have {sizes}.")
        return State([self._open(task) for task in tasks], list(generators))

    @torch.no_grad()
    def step(self, state: State, actions_BLA: Tensor) -> Step:
        """See `WorldModel.step`. Each chunk is imagined as a whole; its context is encoded anew, as in WoVR."""
        batch = len(state.windows)
        if actions_BLA.ndim != 3 or actions_BLA.shape[0] != batch or actions_BLA.shape[1] < 1:
            raise DataError(f"Expected actions (B={batch}, L >= 1, A), got {tuple(actions_BLA.shape)}.")
        moves_BLA = self.to_model(actions_BLA)
        frames = [self._imagine(state, piece_BLA) for piece_BLA in moves_BLA.split(self.conduct.chunk, dim=1)]
        return Step(torch.cat(frames, dim=1)[:, :, None])

    def _imagine(self, state: State, moves_BLA: Tensor) -> Tensor:
        """uint8 frames (B, L, H, W, 3) after each of at most `chunk` actions, on the CPU."""
        length, context = moves_BLA.shape[1], self.conduct.context
        fill = moves_BLA[:, -1:].expand(-1, self.conduct.chunk - length, -1)
        held_BCA = torch.stack([window.actions_CA for window in state.windows])
        actions_BTA = torch.cat([held_BCA, moves_BLA, fill], dim=1).to(self.device)
        known = self.codec.encode(torch.stack([window.frames_CHWc for window in state.windows]))
        shape = (known.shape[1], known.shape[2] + self.conduct.chunk // FRAMES_A_LATENT, *known.shape[3:])
        noise = torch.stack([torch.randn(shape, generator=own, device=own.device).cpu() for own in state.generators])
        latents = sample_chunk(
            self.network,
            known,
            actions_BTA,
            noise.to(self.device),
            self.conduct.denoising_steps,
            self.conduct.shift,
        )
        frames_BLHWc = self.codec.decode(latents)[:, context : context + length].cpu()
        for window, frames_LHWc, moves_LA in zip(state.windows, frames_BLHWc, moves_BLA, strict=True):
            window.advance(frames_LHWc, moves_LA)
        return frames_BLHWc

    def to_model(self, actions: Tensor) -> Tensor:
        """Robot units (…, A) to the model's, float32 on the CPU. Raises `DataError` for another width."""
        if actions.shape[-1] != self.action_dim:
            raise DataError(
                f"The actions have {actions.shape[-1]} dimensions, the world model's have {self.action_dim}."
            )
        return actions.detach().cpu().float() * self.scale_A + self.offset_A

    def seen(self, shown: Task | Episode) -> Tensor:
        """The frames (T, H, W, 3) of the one camera. Raises `DataError` if they do not fit."""
        owner = f"{type(shown).__name__} {shown.id!r}"
        if len(shown.cameras) != 1:
            raise DataError(
                f"{owner} shows the cameras {', '.join(shown.cameras)}; Wan imagines one. Choose it where the dataset "
                "lets you: cameras=[…]."
            )
        frames, side, size = shown.view().cpu(), self.codec.factor * PATCH, self.conduct.image_size
        shape = tuple(frames.shape)
        fits = frames.dtype == torch.uint8 and len(shape) == 4 and 0 not in shape and shape[3] == 3
        if not fits or shape[1] % side or shape[2] % side:
            raise DataError(
                f"{owner}: Wan takes uint8 frames (T, H, W, 3) with sides that are multiples of {side}, got "
                f"{frames.dtype} {shape}. Choose frames of such a size."
            )
        if size is not None and list(shape[1:3]) != size:
            raise DataError(
                f"{owner} has frames of {shape[1]} x {shape[2]} pixels; this Wan was trained on {size[0]} x {size[1]}. "
                "Choose frames of that size, or set world_model.args.image_size to yours."
            )
        return frames

    def _open(self, task: Task) -> Window:
        frames_THWc, moves = self.seen(task), task.actions_TA
        between = len(frames_THWc) - 1
        count = 0 if moves is None else len(moves)
        if count != between:
            raise DataError(
                f"Task {task.id!r} has {between + 1} context frames and {count} actions; {between} lead from one to "
                "the next. Give them, or show one frame."
            )
        moves_TA = torch.zeros(0, self.action_dim) if moves is None else self.to_model(moves)
        return open_window(frames_THWc, moves_TA, self.rest_A, self.conduct.context)

    def module(self) -> torch.nn.Module:
        return self.network

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> LossSum:
        """The flow-matching loss of a chunk of each episode: its mean over the new latents, summed over the episodes.

        An episode of less than a chunk of actions is trained on as many groups of four as it has; one of less than four
        is left out.
        """
        generators = episode_generators(generator, len(episodes))
        clips = draw_clips(self, episodes, generators)
        losses = [chunk_losses(self, same) for same in clips]
        if not losses:
            return LossSum(torch.zeros((), device=self.device), 0.0)
        errors = torch.cat(losses)
        return LossSum(errors.sum(), float(len(errors)))

    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        """PSNR and the like of recorded actions replayed from the first frame, in the chunks that it was trained on."""
        return open_loop_quality(self, episodes, self._chunks, generator)

    def illustrate(self, episodes: Sequence[Episode], directory: Path, *, generator: torch.Generator) -> None:
        """Videos and curves of a few of the episodes."""
        from gymnast_pages.open_loop import illustrate

        illustrate(self, episodes, self._chunks, directory, generator)

    @property
    def _chunks(self) -> Chunks:
        return Chunks(self.conduct.chunk, whole=True)

    def save(self, directory: Path) -> None:
        """Write config.json and model.safetensors, and the autoencoder if it lies nowhere else."""
        settings = self.settings
        place = settings.vae.vae
        if self.own_vae:
            place = None
        elif place is not None and Path(place).expanduser().exists():
            place = str(Path(place).expanduser().resolve())
        config = {
            "architecture": asdict(settings.architecture),
            "conduct": asdict(settings.conduct),
            "autoencoder": {**asdict(settings.vae), "vae": place, "latents": self.codec.digest()},
        }
        state = self.network.transformer.state_dict()
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        checkpoints.write(Path(directory), weights, config, self.codec.vae if self.own_vae else None)
