"""Two rewards that mark the ends of the scale: the simulator's own verdict, and pure chance."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from gymnast_core.config.ranges import Fraction, Seed
from gymnast_core.interfaces import RewardModel
from gymnast_core.types import Reward, Rollout
from gymnast_environment.world import GymnasiumWorld


class EnvironmentReward(RewardModel):
    """What the environment behind the task says: the oracle that learned rewards are measured against.

    A rollout that already carries its world's own outcome keeps it. Any other is replayed: its actions are
    executed in the task's environment from the task's seed, and success is read there, whatever it shows.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        success_key: str = "success"
        """Key in `info` that holds success in [0, 1]."""
        check_first_frame: bool = True
        """Report an error when the environment does not start where the rollout did."""
        image_key: str = "image"
        """Key of the camera image in dictionary observations."""
        cameras: list[str] = field(default_factory=list)
        """Keys of several camera images in dictionary observations, as of the world model `gymnasium`; empty: one."""
        always_replay: bool = False
        """Replay even the rollouts that carry an outcome."""

    def __init__(self, config: EnvironmentReward.Config | None = None):
        self.config = config if config is not None else self.Config()
        self._world = GymnasiumWorld(
            GymnasiumWorld.Config(
                image_key=self.config.image_key,
                cameras=self.config.cameras,
                success_key=self.config.success_key,
                check_first_frame=self.config.check_first_frame,
            )
        )

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [self._score(rollout) for rollout in rollouts]

    def close(self) -> None:
        self._world.close()

    def _score(self, rollout: Rollout) -> Reward:
        if rollout.outcome is not None and not self.config.always_replay:
            return Reward(rollout.outcome, rationale="reported by the world")
        try:
            outcome = self._replay(rollout)
        except Exception as error:  # one broken environment must not cost the other rollouts their reward
            return Reward(None, error=f"{type(error).__name__}: {error}")
        start = rollout.task.start
        assert start is not None
        if outcome is None:
            return Reward(None, error=f"{start.id} reports no {self.config.success_key!r} in info; set success_key.")
        return Reward(outcome, rationale=f"replayed in {start.id}, seed {start.seed}")

    def _replay(self, rollout: Rollout) -> float | None:
        """The outcome after the last action; None if the environment reports none."""
        state = self._world.reset([rollout.task])
        outcome_BL = self._world.step(state, rollout.actions_NLA.flatten(0, 1)[None]).outcome_BL
        assert outcome_BL is not None
        last = float(outcome_BL[0, -1])
        return None if math.isnan(last) else last


class RandomReward(RewardModel):
    """Success by chance: the control that a run has to beat.

    The draw is a hash of the seed and of what happened in the rollout: the same rollout gets the same reward,
    in whatever order or batch it is scored.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        probability: Fraction = 0.5
        """Chance of a success."""
        seed: Seed = 0
        """Other seeds give other draws."""

    def __init__(self, config: RandomReward.Config | None = None):
        self.config = config if config is not None else self.Config()

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [Reward(float(self._uniform(rollout) < self.config.probability)) for rollout in rollouts]

    def _uniform(self, rollout: Rollout) -> float:
        digest = hashlib.blake2b(digest_size=8)
        for text in (str(self.config.seed), rollout.task.id, rollout.task.instruction):
            digest.update(text.encode() + b"\0")
        for tensor in (rollout.actions_NLA, rollout.frames_TVHWC):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        # 53 bits: the most that a float in [0, 1) holds, so that the draw never rounds up to 1.
        return (int.from_bytes(digest.digest(), "big") >> 11) / 2.0**53
