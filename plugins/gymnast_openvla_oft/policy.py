"""OpenVLA-OFT as a `Policy`: what `policy: {name: openvla-oft}` builds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from gymnast_core.config.ranges import Choices, Range
from gymnast_core.errors import CheckpointError, ConfigError, DataError, unknown_name
from gymnast_core.types import ActionChunk, Episode, Evaluation, LossSum, Metric, Observation
from gymnast_openvla_oft.auxiliary import PointHeads
from gymnast_openvla_oft.base import CheckpointConfig, CheckpointPolicy, WantedParts
from gymnast_openvla_oft.decoding import choose, score
from gymnast_openvla_oft.facts import MAX_CHUNK
from gymnast_openvla_oft.imitation import Decisions, recorded_mean, token_loss, token_metrics
from gymnast_openvla_oft.model import Hidden

ACTION_HEADS = ("tokens", "l1")
UNSUPERVISED = (
    "a regression (L1) head predicts one action and no distribution over actions, and the token head (lm_head) beside "
    "it was never supervised, so its tokens can neither be sampled nor scored. "
)
"""Why a checkpoint with a regression head is of no use for reinforcement learning."""


class OpenVLAOFT(CheckpointPolicy):
    """A vision-language-action model with parallel decoding of action chunks (arXiv 2502.19645).

    Actions are tokens, unless the checkpoint has a regression head: such a policy acts at temperature 0, for
    evaluation, with NaN as log-probability; sampling and `evaluate` are refused.
    """

    @dataclass(frozen=True)
    class Config(CheckpointConfig):
        chunk_length: Annotated[int, Range(least=1, most=MAX_CHUNK)] | None = None
        """L, actions a decision. None takes what the checkpoint was saved with. A published one does not say it: 5
        (Bridge) is logged, and has to be said of one with files of the original OpenVLA-OFT."""
        action_head: Annotated[str, Choices("tokens", "l1")] | None = None
        """"tokens", or "l1" for a regression head, a new one where the checkpoint has none; None: the checkpoint's."""
        proprio: bool | None = None
        """Whether it reads proprioception. None: if the checkpoint has a projector of it, which is always used. True
        adds one to a checkpoint that has none, to be trained."""
        film: bool = False
        """Add FiLM to the vision towers of a checkpoint that has none; FiLM that it has is always used."""

    api_version = 2
    config: Config

    def __init__(self, config: Config) -> None:
        _check(config)
        super().__init__(config, WantedParts(config.action_head == "l1", bool(config.proprio), config.film))
        self.regression = self.model.shape.regression_dim > 0
        if self.regression and config.action_head == "tokens":
            raise CheckpointError(
                f"{config.checkpoint} was not trained to predict tokens (action_head=tokens): {UNSUPERVISED}"
                "Leave action_head out to evaluate it."
            )
        self.auxiliary: PointHeads | None = None
        if config.imitation.auxiliary_points:
            self._check_points()
            generator = torch.Generator().manual_seed(config.architecture.seed)
            points, shape = config.imitation.auxiliary_points, self.model.shape
            heads = PointHeads(shape.llama.hidden_size, points, shape.dino.patches, generator)
            self.auxiliary = heads.to(self.model.dtype)
        self.check_golden_actions()

    def _check_points(self) -> None:
        """Points are labelled in the frame as it was recorded, and follow crops and shifts. Raises `ConfigError` where
        the network sees a frame that is turned."""
        if self.facts.preparation == "libero":
            raise ConfigError(
                "imitation.auxiliary_points labels points in the frame as it was recorded, and preparation=libero "
                "turns it. Set auxiliary_points to 0, or leave the frame as it is."
            )

    def _act(self, observation: Observation, temperature: float, generator: torch.Generator | None) -> ActionChunk:
        if self.regression and temperature != 0:
            raise _unusable("sampled from")
        hidden = self._hidden(observation)
        if self.regression:
            actions_BLA = self.units.unnormalise(self.model.action_head(hidden.actions_BKE)).float()
            return ActionChunk(actions_BLA, torch.full_like(actions_BLA[..., :1], math.nan))
        classes_BK, log_prob_BK = choose(self.model.action_logits(hidden.actions_BKE), temperature, generator)
        tokens_BLA = self._unflatten(classes_BK + self.codec.first_token)
        actions_BLA = self.units.unnormalise(self.codec.decode(tokens_BLA)).float()
        return ActionChunk(actions_BLA, self._unflatten(log_prob_BK), tokens_BLA)

    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float | Tensor = 1.0
    ) -> Evaluation:
        """`features_BF` are the mean of the chunk's final hidden states, which have seen no action."""
        if self.regression:
            raise _unusable("trained by reinforcement learning")
        classes_BK = self._classes(chunk, len(observation.instructions))
        actions_BKE = self._hidden(observation).actions_BKE
        log_prob_BK, entropy_BK = score(self.model.action_logits(actions_BKE), classes_BK, temperature)
        # Not views: FSDP2 hangs its backward pass on what is returned.
        return Evaluation(
            log_prob_BLD=self._unflatten(log_prob_BK).clone(),
            entropy_BLD=self._unflatten(entropy_BK).clone(),
            features_BF=actions_BKE.float().mean(1),
        )

    @property
    def least_actions(self) -> int:  # type: ignore[override]
        """A chunk of them, unless short episodes are padded."""
        return 1 if self.config.imitation.short_episodes == "pad" else self.chunk_length

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> LossSum:
        """Cross-entropy of action tokens, or the absolute error of a regression head (normalised units): the mean over
        a chunk, summed over decisions."""
        decisions = self.training_decisions(episodes, generator)
        settings = self.config.imitation
        return self._imitation(decisions, cropped=settings.oft_augmentation, recurring=not settings.augments)

    @torch.no_grad()
    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        """Loss, token accuracy and greedy action error (normalised units) on unaugmented decisions."""
        loss = self._imitation(self.plain_decisions(episodes, generator))
        return {"loss": float(loss.mean), **{name: float(metric.value) for name, metric in loss.metrics.items()}}

    def _imitation(self, decisions: Decisions, **inputs: bool) -> LossSum:
        """Weighed by decisions: each is a chunk of as many actions. What was not recorded weighs nothing."""
        settings = self.config.imitation
        recorded_BL = None if decisions.recorded_BL is None else decisions.recorded_BL.to(self.device)
        hidden = self._hidden(decisions.observation, **inputs)
        normalised_BLA = self.units.normalise(decisions.actions_BLA.to(self.device))
        count = len(normalised_BLA)
        if self.regression:
            error_BLA = self.model.action_head(hidden.actions_BKE) - normalised_BLA.float()
            loss_B = recorded_mean(error_BLA.abs(), recorded_BL)
            metrics = {"action_l1": Metric(loss_B.detach().mean(), count)}
        else:
            logits_BKC, normalised_BK = self.model.action_logits(hidden.actions_BKE), normalised_BLA.flatten(1)
            loss_BK = token_loss(logits_BKC, normalised_BK, self.codec, settings.label_smoothing_sigma)
            loss_B = recorded_mean(self._unflatten(loss_BK), recorded_BL)
            metrics = {"token_loss": Metric(loss_B.detach().mean(), count)}
            kept_BK = None if recorded_BL is None else recorded_BL.repeat_interleave(self.action_dim, 1)
            metrics |= token_metrics(logits_BKC, normalised_BK, self.codec, kept_BK)
        if self.auxiliary is not None and decisions.points_BJ2 is not None:
            points = self.auxiliary(hidden, decisions.points_BJ2.to(self.device))
            loss_B = loss_B + settings.auxiliary_points_weight * points.regression_B
            loss_B = loss_B + settings.auxiliary_patches_weight * points.classification_B
            metrics |= points.metrics
        return LossSum(loss_B.sum(), count, metrics)

    def _hidden(self, observation: Observation, **inputs: bool) -> Hidden:
        count = self.chunk_length * self.action_dim
        return self.model(self.inputs(observation, count, **inputs), count)

    def _classes(self, chunk: ActionChunk, batch: int) -> Tensor:
        shape = (batch, self.chunk_length, self.action_dim)
        tokens_BLA = chunk.tokens_BLD
        if tokens_BLA is None or tokens_BLA.shape != shape:
            found = None if tokens_BLA is None else tuple(tokens_BLA.shape)
            raise DataError(f"The policy scores action tokens of shape {shape}; the chunk's tokens are {found}.")
        return tokens_BLA.flatten(1).to(self.device) - self.codec.first_token

    def _unflatten(self, x_BK: Tensor) -> Tensor:
        return x_BK.unflatten(1, (self.chunk_length, self.action_dim))


def _check(config: OpenVLAOFT.Config) -> None:
    if config.action_head is not None and config.action_head not in ACTION_HEADS:
        raise ConfigError(unknown_name("action_head", config.action_head, ACTION_HEADS))
    if config.chunk_length is not None and config.chunk_length < 1:
        raise ConfigError("chunk_length must be at least 1.")


def _unusable(how: str) -> ConfigError:
    return ConfigError(
        f"The policy cannot be {how}: {UNSUPERVISED}Evaluate it at temperature 0, or use a checkpoint that was "
        "fine-tuned to predict action tokens."
    )
