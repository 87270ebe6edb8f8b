"""Supervised training on recorded episodes: draw decisions, augment, cross-entropy over action tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from gymnast_core.config.ranges import Choices, Fraction, NotNegative, Range
from gymnast_core.errors import DataError
from gymnast_core.rollouts.sight import Names, Sight, find_sight
from gymnast_core.types import Episode, Metric, Needs, Observation, Offers, Task
from gymnast_openvla_oft.actions import ActionCodec
from gymnast_openvla_oft.augmentation import CROP_AREA, jitter_color, oft_recipe, shift


@dataclass(frozen=True)
class Imitation:
    """How the policy learns from episodes. The defaults are plain cross-entropy."""

    decisions_per_episode: Annotated[int, Range(least=1, most=10_000)] = 1
    """Decision times drawn from each episode of a batch."""
    short_episodes: Annotated[str, Choices("leave_out", "pad")] = "leave_out"
    """Episodes with fewer actions than a chunk: left out when a training starts, or padded with a mask: the actions
    after the last recorded one weigh nothing."""
    most_clipped: Fraction = 0.25
    """Share of a dimension of the recorded actions that may lie outside the range that the policy knows, where it is
    clipped. More is an error of the first batches; from 0.05 on it is told, of the proprioception, too. 1: never an
    error."""
    label_smoothing_sigma: Annotated[float, Range(least=0, most=2)] = 0.0
    """Standard deviation of Gaussian soft labels, normalised action units (of a range of 2); 0 is one-hot."""
    oft_augmentation: bool = False
    """OpenVLA-OFT's random crops (90 % of the area) and colours. The policy then acts on the central crop, and says so
    where it is saved (`center_crop`)."""
    shift_pixels: Annotated[int, Range(least=0, most=4096)] = 0
    """Largest random translation of an image on each axis, pixels."""
    color_jitter: Fraction = 0.0
    """Largest relative change of brightness and contrast."""
    auxiliary_points: Annotated[int, Range(least=0, most=1000)] = 0
    """J, points of `Episode.points_TJ2` that the auxiliary heads learn; 0 builds no heads."""
    auxiliary_points_weight: NotNegative = 0.0
    """Weight of the points' regression error (fraction of the image's side)."""
    auxiliary_patches_weight: NotNegative = 0.0
    """Weight of the cross-entropy of the patches that hold the points."""

    @property
    def augments(self) -> bool:
        """Whether images are changed at random."""
        return self.oft_augmentation or self.shift_pixels > 0 or self.color_jitter > 0


@dataclass(frozen=True)
class Decisions:
    """A training batch: what was seen and what the demonstrator did next."""

    observation: Observation
    actions_BLA: Tensor
    """float32, robot units."""
    points_BJ2: Tensor | None
    """Image coordinates in [0, 1], NaN where unknown; None without auxiliary heads."""
    recorded_BL: Tensor | None = None
    """Which actions were recorded, bool; None: all of them. The others repeat the last one, to fill a chunk."""


def draw_decisions(
    episode: Episode, chunk_length: int, settings: Imitation, needs: Needs, generator: torch.Generator
) -> Decisions:
    """Decision times of one episode, uniform over those with a whole chunk of recorded actions after them.

    A shorter episode has one decision time, its first frame, if `settings` say to pad it. Raises `DataError` for one
    that is not to be padded or has no action, or without points when points are wanted, and `ConfigError`
    for one that lacks a camera or readings that the policy needs.
    """
    length = len(episode.actions_TA)
    if length < (1 if settings.short_episodes == "pad" else chunk_length):
        raise DataError(
            f"Episode {episode.id!r} has {length} actions; a chunk needs {chunk_length}. Leave it out, or set "
            "imitation.short_episodes=pad."
        )
    starts = max(length - chunk_length + 1, 1)
    draws = torch.rand(settings.decisions_per_episode, generator=generator, device=generator.device)
    times = [min(int(draw * starts), starts - 1) for draw in draws.tolist()]
    observation = _sight(episode, needs).observe(
        episode.frames_TVHWC[times][:, None],
        None if episode.proprio_TP is None else episode.proprio_TP[times][:, None],
        (episode.instruction,) * len(times),
    )
    missing = max(chunk_length - length, 0)
    actions_TA = torch.cat([episode.actions_TA, episode.actions_TA[-1:].expand(missing, -1)])
    actions_BLA = torch.stack([actions_TA[time : time + chunk_length] for time in times])
    recorded_BL = None if not missing else (torch.arange(chunk_length) < length).expand(len(times), -1)
    points_BJ2 = None
    if settings.auxiliary_points:
        points_BJ2 = _points(episode, settings.auxiliary_points, observation.cameras[0])[times]
    return Decisions(observation, actions_BLA, points_BJ2, recorded_BL)


def joined(decisions: Sequence[Decisions]) -> Decisions:
    """The decisions of several episodes as one batch."""
    seen = [each.observation for each in decisions]
    proprio = [observation.proprio_BTP for observation in seen if observation.proprio_BTP is not None]
    points = [each.points_BJ2 for each in decisions if each.points_BJ2 is not None]
    observation = Observation(
        images_BTVHWC=torch.cat([observation.images_BTVHWC for observation in seen]),
        instructions=tuple(text for observation in seen for text in observation.instructions),
        cameras=seen[0].cameras,
        proprio_BTP=torch.cat(proprio) if proprio else None,
    )
    actions_BLA = torch.cat([each.actions_BLA for each in decisions])
    recorded_BL = None
    if any(each.recorded_BL is not None for each in decisions):
        recorded_BL = torch.cat([_recorded(each) for each in decisions])
    return Decisions(observation, actions_BLA, torch.cat(points) if points else None, recorded_BL)


def recorded_mean(x_BLA: Tensor, recorded_BL: Tensor | None) -> Tensor:
    """Mean (B,) over a chunk's recorded actions."""
    if recorded_BL is None:
        return x_BLA.flatten(1).mean(1)
    mask_BL1 = recorded_BL[..., None].to(x_BLA.device)
    return (x_BLA * mask_BL1).flatten(1).sum(1) / (mask_BL1.flatten(1).sum(1) * x_BLA.shape[-1])


def augment(decisions: Decisions, settings: Imitation, generator: torch.Generator) -> Decisions:
    """Random crops and shifts (the points move along) and colours."""
    observation, points_BJ2 = decisions.observation, decisions.points_BJ2
    images_BVHWC = observation.latest_BVHWC
    if settings.oft_augmentation:
        images_BVHWC, crop_B3 = oft_recipe(images_BVHWC, generator)
        if points_BJ2 is not None:
            crop_B13 = crop_B3[:, None].to(points_BJ2.device)
            points_BJ2 = (points_BJ2 - crop_B13[..., :2]) / crop_B13[..., 2:]
    if settings.shift_pixels:
        images_BVHWC, moved_B2 = shift(images_BVHWC, settings.shift_pixels, generator)
        if points_BJ2 is not None:
            points_BJ2 = points_BJ2 + moved_B2[:, None].to(points_BJ2.device)
    if settings.color_jitter:
        images_BVHWC = jitter_color(images_BVHWC, settings.color_jitter, generator)
    observation = replace(observation, images_BTVHWC=images_BVHWC[:, None])
    return replace(decisions, observation=observation, points_BJ2=points_BJ2)


def centred(decisions: Decisions) -> Decisions:
    """With the points where they lie in the central crop, which the policy itself takes of the images."""
    if decisions.points_BJ2 is None:
        return decisions
    side = CROP_AREA**0.5
    return replace(decisions, points_BJ2=(decisions.points_BJ2 - (1.0 - side) / 2.0) / side)


def token_loss(logits_BKC: Tensor, normalised_BK: Tensor, codec: ActionCodec, sigma: float) -> Tensor:
    """Cross-entropy (nats) of each action in [-1, 1], (B, K); sigma > 0 spreads a label over nearby bins."""
    classes_BK = codec.encode(normalised_BK) - codec.first_token
    if sigma <= 0.0:
        return F.cross_entropy(logits_BKC.transpose(1, 2), classes_BK, reduction="none")
    centers_C = codec.class_centers().to(logits_BKC.device)
    distance_BKC = (normalised_BK[..., None] - centers_C) / sigma
    soft_BKC = (-0.5 * distance_BKC.square()).float().softmax(-1)
    return -(soft_BKC * logits_BKC.log_softmax(-1)).sum(-1)


@torch.no_grad()
def token_metrics(
    logits_BKC: Tensor, normalised_BK: Tensor, codec: ActionCodec, recorded_BK: Tensor | None = None
) -> dict[str, Metric]:
    """How often the most likely token is the right one, and the mean error of its action (normalised units)."""
    tokens_BK = logits_BKC.argmax(-1) + codec.first_token
    if recorded_BK is not None:
        tokens_BK, normalised_BK = tokens_BK[recorded_BK], normalised_BK[recorded_BK]
    weight = tokens_BK.numel()
    return {
        "token_accuracy": Metric((tokens_BK == codec.encode(normalised_BK)).float().mean(), weight),
        "action_l1": Metric((codec.decode(tokens_BK) - normalised_BK).abs().mean(), weight),
    }


def _recorded(decisions: Decisions) -> Tensor:
    if decisions.recorded_BL is not None:
        return decisions.recorded_BL
    return torch.ones(decisions.actions_BLA.shape[:2], dtype=torch.bool)


def _sight(episode: Episode, needs: Needs) -> Sight:
    """How the policy sees an episode; an error says what the episode lacks."""
    readings = None if episode.proprio_TP is None else episode.proprio_TP[:1]
    start = Task(episode.id, episode.instruction, episode.frames_TVHWC[:1], episode.cameras, proprio_TP=readings)
    name = f"the episode {episode.id!r}"
    width = None if readings is None else readings.shape[1]
    return find_sight(needs, Offers(episode.cameras, width), start, Names(world=name, tasks=name))


def _points(episode: Episode, count: int, camera: str) -> Tensor:
    """The first `count` points of every frame, (T, J, 2), which are known in the episode's main camera."""
    if episode.points_TJ2 is None or episode.points_TJ2.shape[1] < count:
        found = 0 if episode.points_TJ2 is None else episode.points_TJ2.shape[1]
        raise DataError(
            f"Episode {episode.id!r} has {found} points a frame; imitation.auxiliary_points is {count}. "
            "Use episodes recorded with points, or set it to 0."
        )
    if camera != episode.cameras[0]:
        raise DataError(
            f"The points of episode {episode.id!r} are those of its main camera {episode.cameras[0]!r}, but the "
            f"policy's first camera is {camera!r}. Put {episode.cameras[0]!r} first in cameras, or set "
            "imitation.auxiliary_points to 0."
        )
    return episode.points_TJ2[:, :count]
