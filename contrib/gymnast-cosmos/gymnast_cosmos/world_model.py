"""Cosmos 3 forward dynamics as a `WorldModel`: what `world_model: {name: cosmos}` builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gymnast_core.config.ranges import AnyNumber, Count, NotNegative, Positive, Seed, check_values
from gymnast_core.devices import find_device
from gymnast_core.errors import ConfigError, DataError, unknown_name
from gymnast_core.hub import locate
from gymnast_core.interfaces import WorldModel
from gymnast_core.types import Step, Task
from PIL import Image
from torch import Tensor

from gymnast_cosmos.actions import ActionSpace, read_quantiles
from gymnast_cosmos.loading import FILES, load_pipeline

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LAYOUTS = ("bridge", "native")
VIEWS = ("ego_view", "third_person_view", "wrist_view", "concat_view")
TIERS = (256, 480, 704, 720)


@dataclass
class Episode:
    """One imagined episode: all that the next chunk depends on."""

    instruction: str
    frame_HWC: Tensor
    euler: Tensor
    """Rotation of the gripper, radians (3,), where the layout needs it."""
    generator: torch.Generator


class Cosmos(WorldModel):
    """An omnimodal diffusion transformer that imagines frames from one frame, the instruction and actions.

    Cosmos 3 (arXiv 2606.02800) through diffusers' `forward_dynamics`, which starts each chunk from one frame, the last:
    earlier context frames have no influence, and what leaves the picture is forgotten. `gymnast fit` does not train it.
    It imagines one camera, whatever the tasks call it.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        checkpoint: str
        """Folder as diffusers saves it, or Hugging Face repository, e.g. nvidia/Cosmos3-Nano."""
        revision: str | None = None
        """Branch, tag or commit of the repository; None is its main branch."""
        domain: str = "bridge_orig_lerobot"
        """The embodiment that diffusers knows by that name: it chooses the projection and width of the actions."""
        layout: str = "bridge"
        """Actions that come in: "bridge" (7: differences of x, y, z in metres and roll, pitch, yaw in radians in base
        axes, gripper 1 open) or "native" (the domain's own layout and width)."""
        statistics: str | None = None
        """JSON file with q01 and q99 of the domain's actions, which become -1 and 1; None, with layout native only:
        actions come in normalised."""
        initial_rotation: list[AnyNumber] = field(default_factory=lambda: [0.0, 0.0, 0.0])
        """Layout bridge: roll, pitch, yaw (radians) recorded at a task's first frame; 0: the gripper points down."""
        view: str = "ego_view"
        """Camera that the prompt names: ego_view (Bridge, too), third_person_view, wrist_view or concat_view."""
        resolution: Count = 256
        """Tier that larger frames are scaled down to: 256, 480, 704 or 720."""
        fps: Positive = 5.0
        """Control steps a second; Bridge has 5."""
        max_chunk: Count = 16
        """Actions imagined at once, at most; longer chunks are split. Bridge was trained on 16."""
        denoising_steps: Count = 35
        """Sampler steps a chunk."""
        guidance: NotNegative = 1.0
        """Classifier-free guidance scale on the instruction; 1 is none, and half the time."""
        guardrail: bool = False
        """Check prompts and frames with NVIDIA's cosmos_guardrail package, which its licence may ask of you."""
        dtype: str = "bfloat16"
        """Of the weights: "float32" or "bfloat16"."""
        device: str = "auto"
        """torch device; auto: cuda where there is one."""
        seed: Seed = 0
        """Of the noise where `reset` is given no generator."""

    def __init__(self, config: Config) -> None:
        _check(config)
        self.config = config
        self.device = find_device(config.device, "world_model.args.device")
        width = _domain_width(config.domain)
        quantiles = None if config.statistics is None else read_quantiles(Path(config.statistics), width)
        self.actions = ActionSpace(config.layout, width, quantiles)
        self.action_dim = self.actions.width
        directory = locate(config.checkpoint, config.revision, files=FILES, key="world_model.args.checkpoint")
        self.pipeline = load_pipeline(directory, DTYPES[config.dtype], config.guardrail)
        if width > self.pipeline.transformer.config.action_dim:
            limit = self.pipeline.transformer.config.action_dim
            raise ConfigError(
                f"domain {config.domain!r} has actions of width {width}; the checkpoint takes up to {limit}."
            )
        self.pipeline.to(self.device)
        self.spatial, self.temporal = self.pipeline.vae_scale_factor_spatial, self.pipeline.vae_scale_factor_temporal

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> list[Episode]:
        """See `WorldModel.reset`. The sides of the frames must be multiples of the autoencoder's factor (16).

        Frames larger than the `resolution` tier are imagined at its size and scaled up again.
        """
        if not tasks:
            raise DataError("No tasks to start from.")
        sizes = sorted({tuple(task.frames_TVHWC.shape[2:4]) for task in tasks})
        if len(sizes) > 1:
            raise DataError(f"The frames of a batch must have one size; these have {sizes}.")
        generator = generator or torch.Generator().manual_seed(self.config.seed)
        seeds = torch.randint(1 << 62, (len(tasks),), generator=generator, device=generator.device).tolist()
        return [self._start(task, seed) for task, seed in zip(tasks, seeds, strict=True)]

    @torch.no_grad()
    def step(self, state: list[Episode], actions_BLA: Tensor) -> Step:
        """See `WorldModel.step`. Episodes are imagined one after another: the pipeline takes one at a time.

        Frames come in groups of the autoencoder's temporal factor (4); an incomplete last group is imagined with the
        last action repeated, and what is too much is dropped.
        """
        if actions_BLA.ndim != 3 or actions_BLA.shape[0] != len(state) or actions_BLA.shape[1] < 1:
            raise DataError(f"Expected actions (B={len(state)}, L >= 1, A), got {tuple(actions_BLA.shape)}.")
        self.actions.check(actions_BLA)
        frames_BLHWC = torch.stack([self._continue(e, a) for e, a in zip(state, actions_BLA.cpu(), strict=True)])
        return Step(frames_BLHWC[:, :, None])

    def _start(self, task: Task, seed: int) -> Episode:
        if len(task.cameras) != 1:
            raise DataError(
                f"Task {task.id!r} shows the cameras {', '.join(task.cameras)}; Cosmos imagines one. Choose it "
                "where the dataset lets you: cameras=[…]."
            )
        frames, moves = task.view(), task.actions_TA
        shape = tuple(frames.shape)
        fits = frames.dtype == torch.uint8 and len(shape) == 4 and shape[0] > 0 and shape[3] == 3
        if not fits or shape[1] % self.spatial or shape[2] % self.spatial or 0 in shape:
            raise DataError(
                f"Task {task.id!r}: Cosmos takes uint8 frames (T, H, W, 3) with sides that are multiples of "
                f"{self.spatial}, got {frames.dtype} {shape}. Choose frames of such a size."
            )
        euler = torch.tensor(self.config.initial_rotation, dtype=torch.float64)
        if moves is not None and len(moves):
            self.actions.check(moves)
            euler = self.actions.turn(euler, moves.cpu())
        return Episode(task.instruction, frames[-1].cpu(), euler, torch.Generator().manual_seed(seed))

    def _continue(self, episode: Episode, actions_LA: Tensor) -> Tensor:
        frames = []
        for chunk in actions_LA.split(self.config.max_chunk):
            frames.append(self._imagine(episode, self.actions.to_model(chunk, episode.euler)))
            episode.euler = self.actions.turn(episode.euler, chunk)
            episode.frame_HWC = frames[-1][-1].clone()
        return torch.cat(frames)

    def _imagine(self, episode: Episode, moves_LA: Tensor) -> Tensor:
        """uint8 frames (L, H, W, 3) after each of the model's actions."""
        from diffusers import CosmosActionCondition

        config, length = self.config, len(moves_LA)
        padding = -length % self.temporal
        moves = torch.cat([moves_LA, moves_LA[-1:].expand(padding, -1)])
        condition = CosmosActionCondition(
            mode="forward_dynamics",
            chunk_size=len(moves),
            domain_name=config.domain,
            resolution_tier=config.resolution,
            raw_actions=moves,
            image=Image.fromarray(episode.frame_HWC.numpy()),
            view_point=config.view,
        )
        video = self.pipeline(
            episode.instruction,
            action=condition,
            fps=config.fps,
            num_inference_steps=config.denoising_steps,
            guidance_scale=config.guidance,
            generator=episode.generator,
            output_type="pt",
            enable_safety_check=config.guardrail,
        ).video
        frames_LCHW = video[1 : length + 1].float().cpu()
        size = tuple(episode.frame_HWC.shape[:2])
        if frames_LCHW.shape[-2:] != size:
            frames_LCHW = F.interpolate(frames_LCHW, size, mode="bilinear", align_corners=False, antialias=True)
        return (frames_LCHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _domain_width(domain: str) -> int:
    from diffusers import CosmosActionCondition

    try:
        condition: Any = CosmosActionCondition(
            mode="policy", chunk_size=1, domain_name=domain, image=Image.new("RGB", (1, 1))
        )
    except ValueError as error:
        raise ConfigError(f"diffusers knows no such domain: {error}") from None
    return int(condition.raw_action_dim)


def _check(config: Cosmos.Config) -> None:
    check_values(type(config), asdict(config))
    for name, known in (("dtype", DTYPES), ("layout", LAYOUTS), ("view", VIEWS)):
        if getattr(config, name) not in known:
            raise ConfigError(unknown_name(name, getattr(config, name), known))
    if config.resolution not in TIERS:
        raise ConfigError(f"resolution is {config.resolution}; choose one of {', '.join(map(str, TIERS))}.")
    if config.layout == "bridge" and config.domain != "bridge_orig_lerobot":
        raise ConfigError(
            f"Layout bridge is that of domain bridge_orig_lerobot; for {config.domain!r} set layout=native."
        )
    if config.layout == "bridge" and config.statistics is None:
        raise ConfigError(
            "Layout bridge needs statistics, the JSON file with q01 and q99 of Cosmos' 10 Bridge dimensions "
            "(NVIDIA's cosmos-framework has it: bridge_orig_lerobot_stats.json)."
        )
    if len(config.initial_rotation) != 3:
        raise ConfigError(f"initial_rotation has {len(config.initial_rotation)} numbers; give roll, pitch, yaw.")
