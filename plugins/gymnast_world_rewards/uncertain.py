"""How sure the world model is of a rollout: what it shows when it imagines the same actions from other noise.

Hallucination concentrates where a world model's data are sparse, and there its samples disagree (arXiv 2606.27326).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Choices, Count, Fraction, NotNegative
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.learning import actions_that_count
from gymnast_core.success import success_of
from gymnast_core.types import Reward, Rollout
from gymnast_world_rewards.around import KEY, AroundJudge, ImaginedConfig, Imagining, JudgeConfig, no_start, unscored

CONSEQUENCES = ("unscored", "penalty")
PARTS = ("mean", "end", "worst")


class Uncertain(AroundJudge):
    """Another judge's verdict on rollouts of which the world model is sure.

    A rollout's spread is the standard deviation of a pixel over imaginations from different noise, the rollout itself
    being one, averaged over pixels (full scale is 1). The metric `judge_spread` is its mean over rollouts,
    `judge_unsure` the share above the threshold.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config(ImaginedConfig):
        judge: JudgeConfig = field(default_factory=JudgeConfig)
        """Who judges."""
        imaginations: Count = 2
        """Times that a rollout is imagined again in the world model, each from noise of its own."""
        also: list[ComponentConfig] = field(default_factory=list)
        """Other world models, {name, args} each, in which it is imagined as well: an ensemble."""
        frames: Annotated[str, Choices(*PARTS)] = "mean"
        """Of which frames the spread is: the "mean" over all, that at the "end", or the "worst" frame's."""
        threshold: Fraction = 0.05
        """Spread above which the world model is unsure, in full scales of a pixel."""
        otherwise: Annotated[str, Choices(*CONSEQUENCES)] = "unscored"
        """What happens to a rollout above the threshold: "unscored" (masked: nothing is learned from it, and it counts
        for loop.max_error_rate), or a "penalty" on its value."""
        penalty: NotNegative = 5.0
        """Taken off the value for each unit of spread above the threshold; the value stays in [0, 1], and what reports
        call success is the judge's."""

    def __init__(self, config: Uncertain.Config | None = None) -> None:
        super().__init__(config if config is not None else self.Config(), "uncertain")
        self.config: Uncertain.Config = self.config
        others = [replace(self.config, world_model=part) for part in self.config.also]
        self._imagining = Imagining(self.config, "uncertain")
        self._others = [Imagining(other, "uncertain") for other in others]
        if any(not part.name for part in self.config.also):
            raise ConfigError(f"{KEY}.also: name each world model, e.g. {{name: worldgym, args: {{checkpoint: …}}}}.")

    @classmethod
    def looks_at(cls, config: Config, frames: int) -> Sequence[int]:
        """What its judge looks at, and the frames of which the spread is."""
        if config.frames != "end":
            return range(frames)
        return sorted({*super().looks_at(config, frames), frames - 1})

    def attach(self, parts: Parts) -> None:
        super().attach(parts)
        for imagining in (self._imagining, *self._others):
            imagining.attach(parts)

    def close(self) -> None:
        super().close()
        for imagining in (self._imagining, *self._others):
            imagining.close()

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        rewards = self.asked(rollouts)
        for row, rollout in enumerate(rollouts):
            if (unfit := no_start(rollout)) is not None and rewards[row].value is not None:
                rewards[row] = unscored(rewards[row], unfit)
        # What has no reward anyway need not be imagined.
        rows = [row for row, reward in enumerate(rewards) if reward.value is not None]
        chosen = [rollouts[row] for row in rows]
        if not chosen:
            return rewards
        again = [self._imagining.again(chosen, number) for number in range(self.config.imaginations)]
        again += [other.again(chosen, "other", number) for number, other in enumerate(self._others)]
        for place, row in enumerate(rows):
            shown = [samples[place] for samples in again]
            lost = next((rollout.error for rollout in shown if rollout.error is not None), None)
            if lost is not None:
                rewards[row] = unscored(rewards[row], f"imagined again, it was lost: {lost}")
            else:
                rewards[row] = self._weighed(chosen[place], rewards[row], self._spread(chosen[place], shown))
        return rewards

    def _spread(self, rollout: Rollout, again: Sequence[Rollout]) -> float:
        """In full scales of a pixel."""
        places = [-1] if self.config.frames == "end" else range(1, rollout.frame_count)
        spread_S = frame_spread([one.frames_at(places) for one in (rollout, *again)])
        return float(spread_S.max() if self.config.frames == "worst" else spread_S.mean())

    def _weighed(self, rollout: Rollout, reward: Reward, spread: float) -> Reward:
        assert reward.value is not None
        config, over = self.config, spread - self.config.threshold
        numbers = {**reward.numbers, "spread": spread, "unsure": float(over > 0)}
        said = f"imaginations spread by {spread:.3f} ({config.threshold:g} is allowed)"
        rationale = f"{reward.rationale}; {said}" if reward.rationale else said
        if over <= 0:
            return replace(reward, rationale=rationale, numbers=numbers)
        if config.otherwise == "unscored":
            error = f"The world model is unsure: {said}."
            return replace(unscored(reward, error), numbers=numbers)
        value = max(reward.value - config.penalty * over, 0.0)
        steps_S = reward.step_values_S
        if steps_S is not None:
            # Taken off at the end, so that the steps still add up to the value.
            steps_S = steps_S.clone()
            steps_S[actions_that_count(rollout, reward) - 1] += value - reward.value
        # Nothing can be taken off a failure, which stays a plain one.
        success = success_of(reward) if value != reward.value else reward.success
        return replace(
            reward, value=value, success=success, step_values_S=steps_S, rationale=rationale, numbers=numbers
        )


def frame_spread(samples: Sequence[Tensor]) -> Tensor:
    """Standard deviation over two or more uint8 samples (S, …), unbiased and averaged over pixels, in full scales."""
    stacked = torch.stack([sample.float() / 255 for sample in samples])
    return stacked.std(0).flatten(1).mean(1)
