"""The training loss: diffusion forcing (arXiv 2407.01392), every frame of a clip at its own noise level.

Shapes: B clips, T frames, H W C latent pixels, A model action dimensions. Frames of several cameras are tall (`views`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from gymnast_core.config.ranges import Fraction, NotNegative, Range, check_values
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.types import Episode, LossSum, Metric
from gymnast_worldgym.actions import ActionSpace
from gymnast_worldgym.codec import Codec
from gymnast_worldgym.model import DiT
from gymnast_worldgym.noise import own_noise
from gymnast_worldgym.pose_memory import PoseMemory
from gymnast_worldgym.schedule import NoiseProcess
from gymnast_worldgym.views import apart, chosen, tall

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PixelWeights:
    """A pixel's loss weight: base + object·(differs from background) + motion·(differs from last frame)."""

    base: NotNegative = 0.4
    """Weight of every pixel."""
    object: NotNegative = 2.5
    """Added where a pixel differs from the clip's background: the median over the pixels of its first frame."""
    motion: NotNegative = 6.0
    """Added where a pixel, or one nearby, differs from the previous frame."""
    threshold: Annotated[int, Range(least=0, most=255)] = 12
    """Smallest difference that counts, in 8-bit steps of the channel that differs most."""
    dilation: Annotated[int, Range(least=0, most=256)] = 1
    """Reach of motion to neighbouring pixels, pixels."""

    def __post_init__(self) -> None:
        check_values(PixelWeights, asdict(self))
        if self.base == self.object == self.motion == 0:
            raise ConfigError("pixel_weights: base, object and motion are all 0: no pixel would count.")


@dataclass(frozen=True)
class TrainingConfig:
    """What the network is trained on; `WorldGym.Config` exposes the same fields."""

    clean_fraction: Fraction = 0.5
    """Share of frames trained nearly clean, as context frames are shown; the others take any noise level."""
    pure_noise_fraction: Fraction = 0.0
    """Share of the other frames that are pure noise: what matters when sampling takes a single step."""
    action_dropout: Fraction = 0.0
    """Probability that a whole clip is trained with the null action (needed for guidance; published: 0.1)."""
    own_previous: Fraction = 0.0
    """Prediction `change`: share of the clips whose frames before are the network's own predictions of them, as they
    are when it imagines: it learns to mend what it painted. Costs a pass without gradients for these."""
    pixel_weights: PixelWeights | None = None
    """Weights of pixels; null weighs them equally."""
    camera_weights: list[NotNegative] | None = None
    """Share of each camera in the loss, in their order, up to a common factor; null: the same. The view in which more
    moves and changes has the larger errors, and of the others little is learned beside it."""

    def __post_init__(self) -> None:
        check_values(TrainingConfig, asdict(self))
        if self.camera_weights is not None and not any(self.camera_weights):
            raise ConfigError("camera_weights: none is above 0: no camera would count.")


@dataclass(frozen=True)
class Clips:
    """Windows of one length, cut from episodes."""

    frames_BTHWC: Tensor
    """uint8 RGB."""
    actions_BTA: Tensor
    """float32 in model units, one per frame; with a memory, the conditions (B, T, R) of `pose_memory`."""
    generators: tuple[torch.Generator, ...]
    """Where the further randomness of each comes from."""
    before_B1HWC: Tensor
    """uint8 RGB: the frame before the window's first, which is the first itself where an episode begins."""
    remembered: int = 0
    """How many of the frames, the first ones, are remembered and not of the window."""


def draw_clips(
    episodes: Sequence[Episode],
    window: int,
    actions: ActionSpace,
    generators: Sequence[torch.Generator],
    cameras: Sequence[str] = (),
    memory: PoseMemory | None = None,
) -> list[Clips]:
    """One window of each episode at a uniform random start, or the whole of a shorter one; one `Clips` a length.

    Frames are those of `cameras`; none: of the one that there is. With `memory`, remembered frames come before the
    window's, which are fewer by their number.

    An episode of less than 2 frames has nothing to learn from: it is left out, and that is said.

    With alignment `same`, a window's last frame needs the action chosen at it: an episode's last frame, which has none
    recorded, is left out where the episode is longer than the window.
    """
    if not episodes:
        raise DataError("No episodes to train on.")
    unpaired = 1 if actions.alignment == "same" else 0
    by_length: dict[int, list[tuple[tuple[Tensor, Tensor, Tensor], torch.Generator]]] = {}
    for episode, generator in zip(episodes, generators, strict=True):
        frames_THWC = tall(chosen(episode.frames_TVHWC, episode.cameras, cameras, f"Episode {episode.id!r}"))
        length = len(frames_THWC)
        if length < 2:
            log.warning("Episode %r has %d frame: left out, since training needs 2.", episode.id, length)
            continue
        size = min(window - (memory.frames if memory else 0), length)
        u = float(torch.rand(1, generator=generator, device=generator.device))
        start = int(u * max(length - size + 1 - unpaired, 1))
        before = frames_THWC[max(start - 1, 0), None]
        clip = (frames_THWC[start : start + size], actions.slots(episode.actions_TA, start, size), before)
        if memory is not None:
            led_to_TA = actions.slots(episode.actions_TA, 0, start + size, "previous")
            clip = _with_remembered(memory, frames_THWC, led_to_TA, start, clip)
        by_length.setdefault(size, []).append((clip, generator))
    clips = []
    for same in by_length.values():
        frames, slots, before = (torch.stack([clip[part] for clip, _ in same]) for part in range(3))
        clips.append(Clips(frames, slots, tuple(own for _, own in same), before, memory.frames if memory else 0))
    return clips


def _with_remembered(
    memory: PoseMemory, frames_THWC: Tensor, led_to_TA: Tensor, start: int, clip: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The clip behind what is remembered of the frames before `start`, as when its last frame is imagined."""
    window, slots, before = clip
    poses_1TP = memory.poses(led_to_TA)[None]
    index_K = memory.chosen(poses_1TP, start, poses_1TP[:, -1])[0]
    (conditions,) = memory.conditions(poses_1TP[:, index_K], poses_1TP[:, start:], slots[None])
    return torch.cat([frames_THWC[index_K.to(frames_THWC.device)], window]), conditions, before


def pixel_weights(frames_BTHWC: Tensor, config: PixelWeights, views: int = 1) -> Tensor:
    """float32 (B, T, H, W, 1) from uint8 frames; a clip's weights are its own, whatever else is in the batch.

    Each view has a background of its own, and nothing reaches from one to the next.
    """
    if views > 1:
        each_view = apart(frames_BTHWC, views).movedim(2, 1)
        return tall(pixel_weights(each_view.flatten(0, 1), config).unflatten(0, (-1, views)).movedim(1, 2))
    frames = frames_BTHWC.to(torch.int16)
    background_B111C = frames[:, 0].flatten(1, 2).median(dim=1).values[:, None, None, None]
    objects = (frames - background_B111C).abs().amax(-1) >= config.threshold
    motion = torch.zeros_like(objects)
    motion[:, 1:] = (frames[:, 1:] - frames[:, :-1]).abs().amax(-1) >= config.threshold
    reach = 2 * config.dilation + 1
    motion = F.max_pool2d(motion.float(), reach, stride=1, padding=config.dilation)
    return (config.base + config.object * objects.float() + config.motion * motion)[..., None]


def diffusion_loss(
    network: DiT,
    process: NoiseProcess,
    codec: Codec,
    actions: ActionSpace,
    clips: Clips,
    config: TrainingConfig,
) -> LossSum:
    """The weighted squared error of the prediction, mean over a clip's frames and pixels, summed over the clips."""
    device = next(network.parameters()).device
    draw = own_noise(clips.generators, device)
    frames = clips.frames_BTHWC.to(device)
    clean = codec.encode(frames, draw)
    time = draw_times(process, clean.shape[1], config, clips.generators, clips.remembered).to(device)
    noise = draw(clean.shape)
    dropped = [torch.rand(1, 1, generator=own, device=own.device) < config.action_dropout for own in clips.generators]
    null = actions.null.to(device)
    slots = clips.actions_BTA.to(device)
    null = F.pad(null, (0, slots.shape[-1] - len(null)))
    of_window_T1 = (torch.arange(slots.shape[1], device=device) >= clips.remembered)[:, None]
    slots = torch.where(torch.stack(dropped).to(device) & of_window_T1, null, slots)

    inputs, timesteps = process.network_input(process.noised(clean, time, noise), time)
    if network.config.change:
        before = codec.encode(clips.before_B1HWC.to(device), draw)
        remembered, kept = clean[:, : clips.remembered], clean[:, clips.remembered : -1]
        inputs = torch.cat([inputs, torch.cat([remembered, before, kept], dim=1)], dim=-1)
        own = torch.cat([torch.rand(1, generator=g, device=g.device) for g in clips.generators]) < config.own_previous
        _show_own(network, inputs, timesteps, slots, own.to(device), clips.remembered)
    error = process.squared_error(network(inputs, timesteps, slots), clean, time, noise)[:, clips.remembered :]
    count = len(error)
    metrics = {"mse": Metric(error.detach().mean(), count)}
    if config.pixel_weights is not None:
        error = error * pixel_weights(frames[:, clips.remembered :], config.pixel_weights, network.config.views)
    if config.camera_weights is not None:
        error = _weighted_by_camera(error, config.camera_weights)
    return LossSum(error.flatten(1).mean(1).sum(), count, metrics)


def _weighted_by_camera(error_BTHWC: Tensor, weights: Sequence[float]) -> Tensor:
    """The errors of each view times its weight, of which the mean is 1."""
    weights_V = error_BTHWC.new_tensor(weights) / (sum(weights) / len(weights))
    return tall(apart(error_BTHWC, len(weights)) * weights_V[:, None, None, None])


def joined(parts: Sequence[LossSum], device: torch.device) -> LossSum:
    """The sum of `diffusion_loss` over clips of several lengths; zero of none."""
    if not parts:
        return LossSum(torch.zeros((), device=device), 0.0)
    count = sum(float(part.weight) for part in parts)
    mse = sum(part.metrics["mse"].value * part.weight for part in parts) / count
    return LossSum(torch.stack([part.total for part in parts]).sum(), count, {"mse": Metric(mse, count)})


@torch.no_grad()
def _show_own(network: DiT, inputs: Tensor, timesteps: Tensor, slots: Tensor, own_B: Tensor, remembered: int) -> None:
    """Replace the frames before, in the clips `own_B`, by what the network predicts them to be.

    What it is shown nearly clean it predicts as shown; what it is not shown of a frame, it learns to mend in the next.
    """
    if own_B.any():
        imagined = network(inputs[own_B], timesteps[own_B], slots[own_B])
        shown = inputs[own_B]
        shown[:, remembered + 1 :, ..., network.config.channels :] = imagined[:, remembered:-1]
        inputs[own_B] = shown


def draw_times(
    process: NoiseProcess,
    length: int,
    config: TrainingConfig,
    generators: Sequence[torch.Generator],
    remembered: int = 0,
) -> Tensor:
    """Training times (B, T), independent per frame: nearly clean, pure noise, or anything between; the first
    `remembered` frames are nearly clean."""
    pure_below = config.clean_fraction + (1 - config.clean_fraction) * config.pure_noise_fraction
    rows = []
    for generator in generators:
        anything = process.draw_times(1, length, generator)
        u = torch.rand(1, length, generator=generator, device=generator.device)
        u[:, :remembered] = -1.0
        clean = process.clean_times(1, length, generator)
        pure = torch.full_like(anything, process.last_time())
        rows.append(torch.where(u < config.clean_fraction, clean, torch.where(u < pure_below, pure, anything)))
    return torch.cat(rows)
