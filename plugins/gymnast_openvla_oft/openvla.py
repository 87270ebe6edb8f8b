"""Plain OpenVLA as a `Policy`: what `policy: {name: openvla}` builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.types import ActionChunk, Episode, Evaluation, LossSum, Metric, Observation
from gymnast_openvla_oft.base import CheckpointConfig, CheckpointPolicy, WantedParts
from gymnast_openvla_oft.causal import generate, token_logits
from gymnast_openvla_oft.decoding import choose, score
from gymnast_openvla_oft.imitation import Decisions


class OpenVLA(CheckpointPolicy):
    """OpenVLA (arXiv 2406.09246): one action a decision, its tokens one after another under causal attention.

    Tokens are drawn from the whole vocabulary, as in the reference; one that is no action token counts as the nearest
    action. It reads the same checkpoint directories as `openvla-oft`.
    """

    api_version = 2
    epsilon: ClassVar[float] = 0.0
    parallel: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Config(CheckpointConfig):
        pass

    def __init__(self, config: Config) -> None:
        if config.imitation.auxiliary_points or config.imitation.label_smoothing_sigma:
            raise ConfigError(
                "openvla is trained with plain cross-entropy: it has no use for imitation.auxiliary_points and "
                "imitation.label_smoothing_sigma. Leave them out, or set policy.name=openvla-oft."
            )
        super().__init__(config, WantedParts())
        shape = self.model.shape
        if shape.regression_dim or shape.proprio_dim or shape.dino.film_width:
            raise CheckpointError(
                f"{config.checkpoint} has a regression head, proprioception or FiLM: it is an OpenVLA-OFT checkpoint. "
                "Set policy.name=openvla-oft."
            )
        self.check_golden_actions()

    def _act(self, observation: Observation, temperature: float, generator: torch.Generator | None) -> ActionChunk:
        inputs = self.inputs(observation, self.action_dim)
        tokens_BA, log_prob_BA = generate(
            self.model, inputs, self.action_dim, lambda logits: choose(logits, temperature, generator)
        )
        actions_BA = self.units.unnormalise(self.codec.decode(tokens_BA)).float()
        return ActionChunk(actions_BA[:, None], log_prob_BA[:, None], tokens_BA[:, None])

    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float | Tensor = 1.0
    ) -> Evaluation:
        """`features_BF` are the hidden state that predicts the first token: later ones have seen the action."""
        shape = (len(observation.instructions), 1, self.action_dim)
        if chunk.tokens_BLD is None or chunk.tokens_BLD.shape != shape:
            found = None if chunk.tokens_BLD is None else tuple(chunk.tokens_BLD.shape)
            raise DataError(f"The policy scores action tokens of shape {shape}; the chunk's tokens are {found}.")
        tokens_BA = chunk.tokens_BLD[:, 0].to(self.device)
        logits_BAC, hidden_BAE = token_logits(self.model, self.inputs(observation, self.action_dim), tokens_BA)
        log_prob_BA, entropy_BA = score(logits_BAC, tokens_BA, temperature)
        # Not views: FSDP2 hangs its backward pass on what is returned.
        return Evaluation(log_prob_BA[:, None].clone(), entropy_BA[:, None].clone(), hidden_BAE[:, 0].float().clone())

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> LossSum:
        """Cross-entropy (nats) of action tokens over the whole vocabulary, teacher-forced: the mean over an action,
        summed over decisions."""
        decisions = self.training_decisions(episodes, generator)
        settings = self.config.imitation
        return self._imitation(decisions, cropped=settings.oft_augmentation, recurring=not settings.augments)

    @torch.no_grad()
    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        """Loss and token accuracy under teacher forcing, and the error of generated actions (normalised units)."""
        decisions = self.plain_decisions(episodes, generator)
        loss = self._imitation(decisions)
        chunk = self._act(decisions.observation, 0.0, None)
        assert chunk.tokens_BLD is not None
        wanted_BLA = self.units.normalise(decisions.actions_BLA.to(self.device))
        error = (self.codec.decode(chunk.tokens_BLD) - wanted_BLA).abs().mean().item()
        found = {name: float(metric.value) for name, metric in loss.metrics.items()}
        return {"loss": float(loss.mean), **found, "action_l1": error}

    def _imitation(self, decisions: Decisions, **inputs: bool) -> LossSum:
        normalised_BA = self.units.normalise(decisions.actions_BLA[:, 0].to(self.device))
        tokens_BA = self.codec.encode(normalised_BA)
        seen = self.inputs(decisions.observation, self.action_dim, **inputs)
        logits_BAC, _ = token_logits(self.model, seen, tokens_BA)
        loss_B = F.cross_entropy(logits_BAC.transpose(1, 2), tokens_BA, reduction="none").mean(1)
        accuracy = (logits_BAC.detach().argmax(-1) == tokens_BA).float().mean()
        count = len(loss_B)
        metrics = {"token_loss": Metric(loss_B.detach().mean(), count), "token_accuracy": Metric(accuracy, count)}
        return LossSum(loss_B.sum(), count, metrics)
