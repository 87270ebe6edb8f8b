"""WorldGym as a Gymnast world model: https://arxiv.org/abs/2506.00613."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gymnast_core.config.presets import fitted_by, untrained
from gymnast_core.config.ranges import check_values
from gymnast_core.devices import find_device
from gymnast_core.errors import DataError
from gymnast_core.frames import Undecoded
from gymnast_core.interfaces import WorldModel
from gymnast_core.rollouts.open_loop import open_loop_quality
from gymnast_core.seeds import episode_generators
from gymnast_core.types import Episode, LossSum, Offers, Step, Task
from gymnast_core.untrained import Untrained
from gymnast_worldgym import checkpoint as checkpoints
from gymnast_worldgym import published
from gymnast_worldgym.actions import ActionSpace
from gymnast_worldgym.architecture import CHUNKS, as_dict
from gymnast_worldgym.beginnings import Beginnings
from gymnast_worldgym.codec import Codec, PixelCodec
from gymnast_worldgym.config import WorldGymConfig
from gymnast_worldgym.devices import compute_dtype
from gymnast_worldgym.facts import offered, settle
from gymnast_worldgym.memory import memory_plan, work_plan
from gymnast_worldgym.model import DiT
from gymnast_worldgym.noise import Noise, generator_noise, own_noise
from gymnast_worldgym.origins import distinct_tasks
from gymnast_worldgym.sampling import Sampler
from gymnast_worldgym.schedule import noise_process
from gymnast_worldgym.training import diffusion_loss, draw_clips, joined
from gymnast_worldgym.vae import AutoencoderCodec
from gymnast_worldgym.views import TallCodec, apart, chosen, tall

log = logging.getLogger(__name__)


@dataclass
class State:
    """B imagined episodes.

    Holds at most a window of latent frames an episode, and what the transformer keeps of them, `sampler.cache_bytes`:
    up to (2 · layers + 2) · window · tokens a frame · dim numbers an episode, twice that with guidance. That is 0.7 GB
    an episode for a published checkpoint (16 layers, window 20, 256 tokens, 1024 wide, float32), 1.4 GB with guidance.
    """

    sampler: Sampler
    noise: Noise
    batch: int


class WorldGym(WorldModel):
    """A diffusion transformer that imagines the next frames from past frames and actions.

    A published checkpoint, from a YAML config:

        world_model: {name: worldgym, args: {preset: bridge-v2, checkpoint: bridge_v2_ckpt.pt}}

    It imagines one camera, whatever the tasks call it, or those named by `cameras` together.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config(WorldGymConfig):
        """What a user may say, see `WorldGymConfig`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._told_horizon = False
        check_values(type(config), asdict(config))
        saved = checkpoints.read(config.checkpoint) if config.checkpoint else None
        settings = settle(config, saved)
        self.architecture, self.sampling = settings.architecture, settings.sampling
        self.autoencoder, self.training = settings.autoencoder, settings.training
        is_learned = self.architecture.codec == "autoencoder-kl"
        self._autoencoder = AutoencoderCodec(self.autoencoder, config.latent_cache) if is_learned else None
        self.codec: Codec = self._autoencoder or PixelCodec()
        self.architecture.check_codec(self.codec)
        if self.architecture.views > 1:
            self.codec = TallCodec(self.codec, self.architecture.views)
        self.actions = ActionSpace(self.architecture, config.unit_range)
        memory = self.architecture.pose_memory
        self._beginnings = Beginnings(self.architecture.window - (memory.frames if memory else 0))
        self.image_size = self.architecture.image_size[0]
        self.action_dim = self.actions.robot_width or self.actions.width
        clip = self.codec.clip if self.architecture.prediction in {"x0", "change"} else None
        self.process = noise_process(self.architecture.prediction, self.sampling.stabilization_level, clip)
        unknown = None if saved else untrained("worldgym", "world_model")
        initial = None if saved else torch.Generator().manual_seed(config.seed)
        self.network = DiT(self.architecture.network(), initial)
        if saved is not None:
            if self._autoencoder is not None:
                self._autoencoder.check_latents(saved.latents, saved.source)
            begun = checkpoints.for_cameras(saved, self.architecture.views)
            checkpoints.load_into(self.network, begun)
            if begun is not saved:
                unknown = self._begun_with(saved)
        self._untrained = Untrained(self.network, unknown, log)
        self.network.to(find_device(config.device, "world_model.args.device")).eval()
        wanted = published.compute_dtype(config.compute_dtype, config.preset)
        self.network.set_compute_dtype(compute_dtype(wanted, self.device))
        if config.compile:
            self.network.compile_passes()

    def _begun_with(self, saved: checkpoints.Checkpoint) -> str:
        return (
            f"{saved.source} was trained on one camera. {', '.join(self.architecture.cameras)} begin with what it "
            "knows of its own view, and what is imagined of them does not fit together. Train it on recordings of all "
            f"of them first: `{fitted_by('worldgym')}` with world_model.args.checkpoint and world_model.args.cameras."
        )

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        """Settings of the published checkpoints."""
        return {name: published.preset(name) for name in published.names()}

    @classmethod
    def offers(cls, config: Config) -> Offers:
        """What is known from the config and the checkpoint's small files; errors as of `facts.offered`."""
        return offered(config)

    @classmethod
    def memory_plan(cls, config: Config, episodes: int) -> dict[str, int]:
        """Bytes of the device's memory by purpose while `episodes` are imagined at once, from the config alone."""
        return memory_plan(config, episodes)

    work_plan = staticmethod(work_plan)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return next(self.network.parameters()).device

    @property
    def concurrent(self) -> bool:  # type: ignore[override]
        return not self.config.compile  # of what torch.compile makes nobody promises it

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> State:
        generator = generator or torch.Generator().manual_seed(self.config.seed)
        return self.start(tasks, generator_noise(generator, self.device))

    def reset_apart(self, tasks: Sequence[Task], *, generators: Sequence[torch.Generator]) -> State:
        return self.start(tasks, own_noise(generators, self.device), apart=True)

    @torch.no_grad()
    def start(self, tasks: Sequence[Task], noise: Noise, *, apart: bool = False) -> State:
        """`reset` with all random numbers from `noise`.

        `noise` is asked first, by codec autoencoder-kl only, for the context frames' posterior sample (U, T, h, w, C),
        U being the number of distinct tasks; then by `step` for the initial noise (B, L, h, w, C) of each chunk of at
        most `horizon` frames. Tasks with equal frames and actions (the rollouts of a group) are encoded once, by the
        autoencoder and the transformer, and share that sample; where it is drawn and episodes are to be `apart`, each
        has its own. Only the last window - 1 context frames are used, with a memory all of them.
        """
        self._check_tasks(tasks)
        self._untrained.tell()
        alone = apart and self._autoencoder is not None
        distinct, origin = (list(tasks), list(range(len(tasks)))) if alone else distinct_tasks(tasks)
        kept = self.architecture.context(len(tasks[0].frames_TVHWC))
        frames = tall(torch.stack([self._seen(task)[-kept:] for task in distinct])).to(self.device)
        moves = [torch.zeros(0, self.action_dim) if task.actions_TA is None else task.actions_TA for task in distinct]
        # The rollout always feeds the action that leads to a frame, also to models trained with the other
        # alignment: their published evaluation does the same.
        length = len(tasks[0].frames_TVHWC)
        slots = torch.stack([self.actions.slots(move.cpu(), 0, length, "previous") for move in moves])
        origin_B = torch.tensor(origin).to(self.device)
        sampler = Sampler(
            self.network,
            self.process,
            self.sampling,
            self.architecture.window,
            self.actions.null,
            self.codec.encode(frames, noise)[origin_B],
            slots[:, -kept:].to(self.device)[origin_B],
            origins=origin,
            memory=self.architecture.pose_memory,
        )
        return State(sampler, noise, len(tasks))

    @torch.no_grad()
    def step(self, state: State, actions_BLA: Tensor) -> Step:
        if actions_BLA.ndim != 3 or actions_BLA.shape[0] != state.batch or actions_BLA.shape[1] < 1:
            raise DataError(f"Expected actions (B={state.batch}, L >= 1, A), got {tuple(actions_BLA.shape)}.")
        slots = self.actions.to_model(actions_BLA).to(self.device)
        horizon = self._together(slots.shape[1])
        height, width = (size // self.codec.factor for size in self.architecture.image_size)
        height *= self.architecture.views
        parts = []
        for chunk_BLA in slots.split(horizon, dim=1):
            noise = state.noise((state.batch, chunk_BLA.shape[1], height, width, self.architecture.channels))
            parts.append(state.sampler.extend(chunk_BLA, noise))
        latents = torch.cat(parts, dim=1)
        # Pixels cost nothing; an autoencoder decodes what somebody looks at.
        return Step.showing(self._decode(latents) if self._autoencoder is None else Undecoded(latents, self._decode))

    def _decode(self, latents: Tensor) -> Tensor:
        return apart(self.codec.decode(latents.to(self.device)), self.architecture.views)

    def _together(self, length: int) -> int:
        """Frames of a chunk that are denoised together; says once where they are fewer than was asked for."""
        wanted = self.sampling.horizon or length
        horizon = min(wanted, length, self.architecture.most_new)
        if horizon < wanted and not self._told_horizon:
            self._told_horizon = True
            log.warning(
                "%d frames are denoised together, not horizon=%s: chunks have %d actions, and the window of %d frames "
                "holds a frame of context besides.",
                horizon, self.sampling.horizon or "null (a whole chunk)", length, self.architecture.window,
            )  # fmt: skip
        return horizon

    @property
    def least_actions(self) -> int:  # type: ignore[override]
        """Two frames, or whole windows alone."""
        return self.architecture.window - 1 if self.config.short_episodes == "leave_out" else 1

    def module(self) -> DiT:
        return self.network

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> LossSum:
        """The mean over a clip's frames and pixels, summed over clips, one of each episode of at least 2 frames."""
        self._untrained.trained()
        generators = episode_generators(generator, len(episodes))
        for episode in episodes:
            self._seen(episode)
        self._beginnings.look([len(episode.frames_TVHWC) for episode in episodes])
        cameras, memory = self.architecture.cameras, self.architecture.pose_memory
        clips = draw_clips(episodes, self.architecture.window, self.actions, generators, cameras, memory)
        parts = [
            diffusion_loss(self.network, self.process, self.codec, self.actions, same, self.training) for same in clips
        ]
        return joined(parts, self.device)

    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        return open_loop_quality(self, [self._restricted(episode) for episode in episodes], CHUNKS, generator)

    def illustrate(self, episodes: Sequence[Episode], directory: Path, *, generator: torch.Generator) -> None:
        from gymnast_pages.open_loop import illustrate

        illustrate(self, [self._restricted(episode) for episode in episodes], CHUNKS, directory, generator)

    def save(self, directory: Path) -> None:
        config: dict[str, Any] = {"architecture": as_dict(self.architecture), "sampling": as_dict(self.sampling)}
        if self.architecture.codec == "autoencoder-kl":
            config["autoencoder"] = as_dict(self.autoencoder.resolved())
        latents = None if self._autoencoder is None else self._autoencoder.latents
        checkpoints.write(Path(directory), self.network, config, latents)

    def _check_tasks(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            raise DataError("No tasks to start from.")
        length = len(tasks[0].frames_TVHWC)
        # Without actions a memory would take the robot to have stood still.
        known = {length - 1} if self.architecture.memory else {0, length - 1}
        for task in tasks:
            self._seen(task)
            moves = 0 if task.actions_TA is None else task.actions_TA.shape[0]
            if len(task.frames_TVHWC) != length or moves not in known:
                raise DataError(
                    f"Task {task.id!r} has {len(task.frames_TVHWC)} context frames and {moves} actions; "
                    f"the tasks of a batch need equally many frames ({length}) and one action fewer."
                )

    def _restricted(self, episode: Episode) -> Episode:
        """The episode with the cameras alone that are imagined."""
        cameras = tuple(self.architecture.cameras) or episode.cameras
        return replace(episode, frames_TVHWC=self._seen(episode), cameras=cameras)

    def _seen(self, shown: Task | Episode) -> Tensor:
        """The frames (T, V, H, W, 3) of the cameras that are imagined. Raises `DataError` if they do not fit."""
        owner = f"{type(shown).__name__} {shown.id!r}"
        frames = chosen(shown.frames_TVHWC, shown.cameras, self.architecture.cameras, owner)
        height, width = self.architecture.image_size
        expected = (self.architecture.views, height, width, 3)
        if frames.dtype != torch.uint8 or frames.shape[0] < 1 or tuple(frames.shape[1:]) != expected:
            found = f"{frames.dtype} {(frames.shape[0], *frames.shape[2:])}"
            raise DataError(
                f"{owner}: the world model takes uint8 frames (T, {height}, {width}, 3), "
                f"got {found}. Choose frames of that size; for tasks, see tasks.args.image_size."
            )
        return frames
