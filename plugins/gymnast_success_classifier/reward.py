"""The learned reward: a closed set of instructions, judged from the first and the last frame of a rollout."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gymnast_core.config.presets import fitted_by
from gymnast_core.config.ranges import Choices, Count, NotNegative, Seed, check_values
from gymnast_core.devices import find_device
from gymnast_core.errors import CheckpointError, ConfigError, unknown_name
from gymnast_core.interfaces import RewardModel
from gymnast_core.seeds import episode_generators
from gymnast_core.types import ONE_CAMERA, Episode, LossSum, Metric, Reward, Rollout
from gymnast_core.untrained import Untrained
from gymnast_success_classifier import checkpoint
from gymnast_success_classifier.augmentation import AugmentationConfig, augment
from gymnast_success_classifier.checkpoint import COMPARED_WITH, Hidden, ImageSize, Share, Width, normalised
from gymnast_success_classifier.metrics import judge_quality
from gymnast_success_classifier.model import ChangeClassifier, frame_pair

SIZES = {"image_size": 32, "width": 32, "hidden": 128}
"""Of a fresh network."""
UNTRAINED = (
    "The success classifier judges, and its network was never trained: its verdicts are noise. Set "
    "reward_model.args.checkpoint, or fit one first: gymnast fit reward_model.name=success-classifier."
)
log = logging.getLogger(__name__)
USUAL = {"threshold": 0.5, "compared_with": "start"}
"""How it judges where neither the config nor a checkpoint says it."""


class SuccessClassifier(RewardModel):
    """Success as a small network learned it from labelled episodes.

    Every episode teaches about every instruction whose outcome is known (`Episode.outcomes`, hindsight): what
    was done well for another instruction is a negative. An instruction outside the set is an error, not a 0.
    """

    api_version = 2
    kind = "success"

    @dataclass(frozen=True)
    class Config:
        checkpoint: str | None = None
        """Folder written by `save`, which fixes instructions and sizes; None: a fresh network."""
        instructions: list[str] = field(default_factory=list)
        """The closed set of instructions; with a checkpoint, leave it empty."""
        camera: str | None = None
        """Which camera it looks at; None: the one that the checkpoint was fitted on, or the main one where nobody named
        that."""
        image_size: ImageSize | None = None
        """Side, in pixels, that frames are resized to; None: the checkpoint's, or 32."""
        width: Width | None = None
        """Channels of the first stage, a multiple of 8; None: the checkpoint's, or 32."""
        hidden: Hidden | None = None
        """Units of the head's hidden layer; None: the checkpoint's, or 128."""
        threshold: Share | None = None
        """Probability above which a rollout counts as a success; None: the checkpoint's, or 0.5."""
        thresholds: dict[str, Share] = field(default_factory=dict)
        """The same for single instructions, {instruction: probability}, where one is harder to judge than the others:
        `gymnast gate` and `gymnast judge` show each one's precision (thresholds by task: WMPO, arXiv 2511.09515).
        Empty: the checkpoint's, unless `threshold` is given."""
        positive_share: Share = 0.25
        """Weight, in an episode's loss, of the instructions known to be fulfilled, however many they are; those known
        not to be get the rest of 1. Less means fewer false alarms."""
        own_share: NotNegative = 0.0
        """Extra weight of an episode's own instruction; every known outcome has weight 1 anyway."""
        augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
        """Distortions of training frames."""
        compared_with: Annotated[str, Choices(*COMPARED_WITH)] | None = None
        """What the end of a rollout is compared with: the frame at its "start", where the policy begins, or the first
        frame of its task's "context". Where policies begin in an episode's midst, with its first frame as context, the
        latter asks whether the episode fulfils the instruction, and the former whether what is left does by itself.
        None: the checkpoint's, or "start"."""
        batch_size: Count = 256
        """Rollouts scored at once."""
        init_seed: Seed = 0
        """Seed of a fresh network's weights."""
        device: str = "cpu"
        """torch device of the network; auto: cuda where there is one."""

    def __init__(self, config: SuccessClassifier.Config | None = None):
        config = config if config is not None else self.Config()
        directory = Path(config.checkpoint).expanduser() if config.checkpoint is not None else None
        config = _fresh(config) if directory is None else _with_checkpoint(config, directory)
        _check(config)
        self.config: SuccessClassifier.Config = config
        self._main_cameras: set[str] = set()
        """Those of the episodes that it was fitted to."""
        self._index = {normalised(text): index for index, text in enumerate(config.instructions)}
        own = {normalised(text): threshold for text, threshold in config.thresholds.items()}
        self._threshold_I = torch.tensor([own.get(text, config.threshold) for text in self._index])
        self.network = _build(config)
        if directory is not None:
            checkpoint.read_weights(directory, self.network)
        self._untrained = Untrained(self.network, UNTRAINED if directory is None else None, log)
        self.network.to(find_device(config.device, "reward_model.args.device"))

    @classmethod
    def looks_at(cls, config: Config, frames: int) -> Sequence[int]:
        """The first and the last one."""
        return 0, frames - 1

    def module(self) -> nn.Module:
        return self.network

    @torch.no_grad()
    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        self._untrained.tell()
        rewards = [Reward(None, error="not judged")] * len(rollouts)
        known: list[int] = []
        for position, rollout in enumerate(rollouts):
            if normalised(rollout.task.instruction) not in self._index:
                error = unknown_name("instruction", rollout.task.instruction, self.config.instructions)
                rewards[position] = Reward(None, error=error)
            elif self.config.camera is not None and self.config.camera not in rollout.cameras:
                error = unknown_name("camera", self.config.camera, rollout.cameras)
                advice = "The success classifier looks at it; reward_model.args.camera=NAME names another."
                rewards[position] = Reward(None, error=f"{error} {advice}")
            else:
                known.append(position)
        for start in range(0, len(known), self.config.batch_size):
            chosen = known[start : start + self.config.batch_size]
            probability_BI = self._probabilities([self._ends(rollouts[position]) for position in chosen])
            for row, position in enumerate(chosen):
                index = self._index[normalised(rollouts[position].task.instruction)]
                rewards[position] = self._reward(probability_BI[row, index], self._threshold_I[index])
        return rewards

    def _ends(self, rollout: Rollout) -> Tensor:
        """uint8 (2, H, W, C): what the end is compared with, and the end."""
        ends_2HWC = rollout.view(self.config.camera, (0, -1))
        if self.config.compared_with == "start":
            return ends_2HWC
        camera = self.config.camera if self.config.camera is not None else rollout.cameras[0]
        return torch.stack([rollout.task.view(camera)[0].to(ends_2HWC.device), ends_2HWC[-1]])

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> LossSum:
        """Cross-entropy of the known outcomes, balanced within each episode by `positive_share`, summed over episodes.

        An episode of which nothing is known weighs nothing.
        """
        self._untrained.trained()
        self._note_cameras(episodes)
        generators = episode_generators(generator, len(episodes))
        pairs_B2CHW = self._pairs([episode.view(self.config.camera) for episode in episodes])
        distorted = [
            augment(pair_2CHW[None], self.config.augmentation, own)
            for pair_2CHW, own in zip(pairs_B2CHW, generators, strict=True)
        ]
        target_BI, weight_BI = (tensor.to(pairs_B2CHW.device) for tensor in self._labels(episodes))
        positive_BI, negative_BI = weight_BI * target_BI, weight_BI * (1 - target_BI)
        share = self.config.positive_share
        balanced_BI = share * _normalise(positive_BI) + (1 - share) * _normalise(negative_BI)
        logits_BI = self.network(torch.cat(distorted))
        total = F.binary_cross_entropy_with_logits(logits_BI, target_BI, balanced_BI, reduction="sum")
        judged_BI = (logits_BI.detach() > 0).float()
        metrics = {
            "recall": _mean_of(judged_BI, positive_BI),
            "false_positive_rate": _mean_of(judged_BI, negative_BI),
        }
        return LossSum(total, weight_BI.any(1).sum(), metrics)

    @torch.no_grad()
    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        """`judge_quality` at the threshold: own instructions, and the others as `hindsight_*`."""
        probabilities, targets, own, known = [], [], [], []
        for start in range(0, len(episodes), self.config.batch_size):
            stop = min(start + self.config.batch_size, len(episodes))
            batch = [episodes[index] for index in range(start, stop)]
            self._note_cameras(batch)
            probabilities.append(self._probabilities([episode.view(self.config.camera) for episode in batch]))
            target_BI, weight_BI = self._labels(batch)
            targets.append(target_BI)
            known.append(weight_BI > 0)
            own.append(self._own(batch))
        probability, target = torch.cat(probabilities), torch.cat(targets)
        is_own, is_known = torch.cat(own), torch.cat(known)
        threshold, own_ones, others = self._threshold_I.expand_as(probability), is_own & is_known, is_known & ~is_own
        metrics = judge_quality(probability[own_ones], target[own_ones], threshold[own_ones])
        hindsight = judge_quality(probability[others], target[others], threshold[others])
        return metrics | {f"hindsight_{name}": value for name, value in hindsight.items()}

    def save(self, directory: Path) -> None:
        kept = {name: getattr(self.config, name) for name in (*SIZES, *USUAL)}
        description = checkpoint.Description(
            **kept,
            instructions=list(self.config.instructions),
            camera=self._fitted_camera(),
            thresholds=dict(self.config.thresholds),
        )
        checkpoint.write(Path(directory), description, self.network)

    def _note_cameras(self, episodes: Sequence[Episode]) -> None:
        """Remember which camera is the main one, where none is named; say once that it is not the same in all."""
        if self.config.camera is not None:
            return
        before = len(self._main_cameras)
        self._main_cameras |= {episode.cameras[0] for episode in episodes}
        if before < 2 <= len(self._main_cameras):
            log.warning(
                "The success classifier is fitted to the main camera of each episode, and these differ: %s. Name the "
                "one that it is to look at: reward_model.args.camera=NAME.", ", ".join(sorted(self._main_cameras)),
            )  # fmt: skip

    def _fitted_camera(self) -> str | None:
        """The camera that it looks at, by name; None where nobody named it, or there were several."""
        if self.config.camera is not None or len(self._main_cameras) != 1:
            return self.config.camera
        return next(iter(self._main_cameras - set(ONE_CAMERA)), None)

    def _pairs(self, frames: Sequence[Tensor]) -> Tensor:
        assert self.config.image_size is not None
        pairs = [frame_pair(frames_THWC, self.config.image_size) for frames_THWC in frames]
        return torch.stack(pairs).to(next(self.network.parameters()).device)

    def _probabilities(self, frames: Sequence[Tensor]) -> Tensor:
        return self.network(self._pairs(frames)).float().sigmoid().cpu()

    def _reward(self, probability: Tensor, threshold: Tensor) -> Reward:
        if probability.isnan():
            return Reward(None, error="The success classifier returned NaN; its checkpoint is damaged.")
        shown = probability.item()
        return Reward(float(probability > threshold), partial=shown, rationale=f"success probability {shown:.2f}")

    def _labels(self, episodes: Sequence[Episode]) -> tuple[Tensor, Tensor]:
        """Targets (B, I) in {0, 1} and weights (B, I), 0 where the outcome is not known."""
        target_BI = torch.zeros(len(episodes), len(self._index))
        weight_BI = torch.zeros(len(episodes), len(self._index))
        for row, episode in enumerate(episodes):
            outcomes = {normalised(text): fulfilled for text, fulfilled in episode.outcomes.items()}
            if episode.success is not None:
                outcomes[normalised(episode.instruction)] = episode.success
            for text, fulfilled in outcomes.items():
                if text in self._index:
                    target_BI[row, self._index[text]] = float(fulfilled)
                    weight_BI[row, self._index[text]] = 1.0
        return target_BI, weight_BI * (1.0 + self.config.own_share * self._own(episodes))

    def _own(self, episodes: Sequence[Episode]) -> Tensor:
        """Which entry of each row is the episode's own instruction, bool (B, I)."""
        own_BI = torch.zeros(len(episodes), len(self._index), dtype=torch.bool)
        for row, episode in enumerate(episodes):
            index = self._index.get(normalised(episode.instruction))
            if index is not None:
                own_BI[row, index] = True
        return own_BI


def _normalise(weight_BI: Tensor) -> Tensor:
    """Weights that add up to 1 in each row that has any."""
    return weight_BI / weight_BI.sum(1, keepdim=True).clamp(min=1e-9)


def _mean_of(values_BI: Tensor, weight_BI: Tensor) -> Metric:
    weight = weight_BI.sum()
    return Metric((values_BI * weight_BI).sum() / weight.clamp(min=1e-9), weight)


def _build(config: SuccessClassifier.Config) -> ChangeClassifier:
    assert config.width is not None and config.hidden is not None
    # Layers draw their first weights from the global generator; forking leaves it as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.init_seed)
        return ChangeClassifier(instructions=len(config.instructions), width=config.width, hidden=config.hidden)


def _fresh(config: SuccessClassifier.Config) -> SuccessClassifier.Config:
    """With the sizes of a fresh network, and the usual way to judge, where none are given."""
    return _filled(config, {**SIZES, **USUAL})


def _with_checkpoint(config: SuccessClassifier.Config, directory: Path) -> SuccessClassifier.Config:
    """With the checkpoint's sizes and instructions, of which the config must say nothing else, and with the camera and
    the way to judge that it was saved with, where the config says nothing."""
    stored = checkpoint.read_config(directory)
    if config.instructions and list(config.instructions) != stored.instructions:
        raise CheckpointError(
            f"The success classifier in {directory} judges {len(stored.instructions)} other instructions than the "
            "config lists. Leave reward_model.args.instructions empty, or fit a classifier for yours."
        )
    sizes = {name: getattr(stored, name) for name in SIZES}
    for name, size in sizes.items():
        if getattr(config, name) not in (None, size):
            raise ConfigError(
                f"reward_model.args.{name} is {getattr(config, name)}, but the success classifier in {directory} has "
                f"{size}. Leave it out."
            )
    if stored.camera is not None and config.camera not in (None, stored.camera):
        log.warning(
            "The success classifier in %s was fitted on the camera %r; it looks at %r.", directory, stored.camera,
            config.camera,
        )  # fmt: skip
    thresholds = dict(config.thresholds)
    if not thresholds and config.threshold is None:
        thresholds = dict(stored.thresholds)
    config = replace(config, instructions=stored.instructions, thresholds=thresholds, **sizes)
    said = {name: getattr(stored, name) for name in ("camera", *USUAL)}
    return _filled(config, {**USUAL, **{name: value for name, value in said.items() if value is not None}})


def _filled(config: SuccessClassifier.Config, values: Mapping[str, Any]) -> SuccessClassifier.Config:
    """With these values in the place of None."""
    return replace(config, **{name: value for name, value in values.items() if getattr(config, name) is None})


def _check(config: SuccessClassifier.Config) -> None:
    check_values(SuccessClassifier.Config, asdict(config), "reward_model.args")
    if not config.instructions:
        raise ConfigError(
            "The success classifier has neither a checkpoint nor instructions. Set "
            "reward_model.args.checkpoint to a fitted classifier's folder, or reward_model.args.instructions "
            f"to fit a new one: `{fitted_by('success-classifier')}` makes such a folder, RUN/checkpoint."
        )
    if len({normalised(text) for text in config.instructions}) < len(config.instructions):
        raise ConfigError("reward_model.args.instructions lists an instruction twice.")
    known = {normalised(text) for text in config.instructions}
    for text in config.thresholds:
        if normalised(text) not in known:
            raise ConfigError(f"reward_model.args.thresholds: {unknown_name('instruction', text, config.instructions)}")
    if len({normalised(text) for text in config.thresholds}) < len(config.thresholds):
        raise ConfigError("reward_model.args.thresholds lists an instruction twice.")
    if config.width is None or config.width % 8:
        raise ConfigError(f"reward_model.args.width is {config.width}; it must be a multiple of 8.")
