"""The public check of reward models: what it verifies, what it catches, and what it says that it could not see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from gymnast_core.errors import ContractError
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.testing import check_reward_model
from gymnast_core.testing.making import COURSES
from gymnast_core.types import Episode, Reward, Rollout, Task


def tasks(count: int = 2, cameras: tuple[str, ...] = ("front",), **fields: Any) -> list[Task]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 180, (count, 1, len(cameras), 8, 8, 3), generator=generator).to(torch.uint8)
    return [Task(f"t{i}", "go right", frames[i], cameras, **fields) for i in range(count)]


class Brighter(RewardModel):
    """How much brighter the last frame is, in [0, 1]; progress is rewarded as it is made."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        """A config without fields."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [self.judge(rollout) for rollout in rollouts]

    def judge(self, rollout: Rollout) -> Reward:
        if not len(rollout.frames_TVHWC):
            return Reward(None, error="no frames")
        light_T = rollout.view().float().flatten(1).mean(1) / 255
        return Reward(min(max(float(light_T[-1] - light_T[0]), 0.0), 1.0), step_values_S=light_T.diff())


class Score(Brighter):
    """The same without bounds: anything finite is a score."""

    kind = "score"

    def judge(self, rollout: Rollout) -> Reward:
        if not len(rollout.frames_TVHWC):
            return Reward(None, error="no frames")
        return Reward(float(rollout.view()[-1].float().mean()))


def test_a_reward_model_that_keeps_its_contract() -> None:
    verified = check_reward_model(Brighter, tasks=tasks())
    assert "8 of 8 rollouts judged, values of the kind 'success'" in verified
    assert {"rewards are in order", "a reward does not depend on the other rollouts"} <= set(verified)
    assert {"step_values_S rewards each action", "its state goes through a snapshot and back"} <= set(verified)
    assert not any(line.startswith("not shown") for line in verified)
    assert "8 of 8 rollouts judged, values of the kind 'score'" in check_reward_model(Score(), tasks=tasks())
    assert check_reward_model(Brighter, tasks=tasks(2, ("front", "wrist"), proprio_TP=torch.zeros(1, 3)))


def test_the_rollouts_are_still_half_done_and_finished() -> None:
    """As far as their frames, actions and outcomes show; an expert is followed where there is one."""
    seen: list[Rollout] = []

    class Watching(Brighter):
        """Remembers what it was shown first."""

        def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
            seen.extend(() if seen else rollouts)
            return super().score(rollouts)

    frames = torch.arange(0, 130, 10, dtype=torch.uint8).reshape(13, 1, 1, 1, 1).expand(13, 1, 8, 8, 3)
    expert = Episode("demo", "go right", frames, torch.zeros(12, 2), ("front",))
    start = Task("t", "go right", frames[:1], ("front",), expert=expert)
    check_reward_model(Watching, tasks=[start, *tasks(1)])
    still, half, finished, _ = seen[: len(COURSES)]
    assert [r.frames_TVHWC[-1].max().item() for r in (still, half, finished)] == [0, 60, 120]
    assert torch.equal(half.frames_TVHWC[3], half.frames_TVHWC[-1]) and half.actions_NLA[1].abs().max() == 0
    assert [rollout.outcome for rollout in seen[: len(COURSES)]] == [0.0, 0.0, 1.0, None]
    assert {rollout.group for rollout in seen[: len(COURSES)]} == {0}
    still, half, finished, noise = seen[len(COURSES) :]
    assert torch.equal(still.frames_TVHWC[0], still.frames_TVHWC[-1])
    assert not torch.equal(half.frames_TVHWC[-1], finished.frames_TVHWC[-1]) and still.actions_NLA.abs().max() == 0
    assert noise.actions_NLA.abs().max() > 0


def test_a_judge_of_outcomes_is_shown_some() -> None:
    class Outcome(Brighter):
        """What the world said."""

        def judge(self, rollout: Rollout) -> Reward:
            return Reward(None, error="?") if rollout.outcome is None else Reward(rollout.outcome)

    verified = check_reward_model(Outcome, tasks=tasks())
    assert "6 of 8 rollouts judged, values of the kind 'success'" in verified


def broken(**methods: Any) -> Callable[[], RewardModel]:
    return type("Broken", (Brighter,), {"__doc__": "Breaks one clause.", **methods})


def relative(self: Brighter, rollouts: Sequence[Rollout]) -> list[Reward]:
    """Success of those that are better than the mean of their batch: every rollout alone is none."""
    light = [float(r.view()[-1].float().mean()) if len(r.frames_TVHWC) else 0.0 for r in rollouts]
    mean = sum(light) / max(len(light), 1)
    return [Reward(float(value > mean + 1e-3)) for value in light]


def after_a_success(self: Brighter, rollouts: Sequence[Rollout]) -> list[Reward]:
    """Sound on noise; once a rollout is still, what stands beside a finished one is judged like it."""
    rewards = [self.judge(rollout) for rollout in rollouts]
    if any(rollout.outcome == 1.0 for rollout in rollouts):
        still = [len(r.frames_TVHWC) > 0 and torch.equal(r.frames_TVHWC[0], r.frames_TVHWC[-1]) for r in rollouts]
        rewards = [Reward(1.0) if one else reward for one, reward in zip(still, rewards, strict=True)]
    return rewards


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"score": relative}, "the same reward on its own"),
        ({"score": after_a_success}, "the same reward on its own"),
        ({"kind": "rank"}, 'kind: expected "success" or "score"; got \'rank\''),
        ({"judge": lambda self, rollout: Reward(1.5)}, r'success in \[0, 1\], or kind = "score"'),
        (
            {"judge": lambda self, rollout: Reward(0.5, torch.zeros(rollout.horizon + 1))},
            r"step_values_S to be \(6,\) torch.float32; got \(7,\)",
        ),
        ({"judge": lambda self, rollout: Reward(0.5, torch.zeros(6).double())}, "got .*float64"),
        ({"judge": lambda self, rollout: Reward(0.5, finish_step=7)}, "a finish_step of at most 6"),
        ({"state_dict": lambda self: {"judge": self}}, "state_dict: expected nested dicts .*cannot hold"),
        ({"state_dict": lambda self: {"seen": 3}, "load_state_dict": lambda self, state: state["saw"]}, "KeyError"),
        ({"state_dict": lambda self: {"draw": float(torch.rand(()))}}, "load_state_dict: expected the state"),
    ],
)
def test_a_broken_clause_is_caught(methods: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_reward_model(broken(**methods), tasks=tasks())


def test_a_state_that_changes_rewards_is_caught_when_it_comes_back_changed() -> None:
    def load(self: Any, state: dict[str, float]) -> None:
        self.bonus = 0.25

    def judge(self: Any, rollout: Rollout) -> Reward:
        found = Brighter.judge(self, rollout)
        return found if found.value is None else Reward(found.value / 2 + getattr(self, "bonus", 0.0))

    with pytest.raises(ContractError, match="load_state_dict: expected the rewards of before"):
        check_reward_model(broken(load_state_dict=load, judge=judge), tasks=tasks())


def test_nothing_judged_is_no_contract_kept() -> None:
    with pytest.raises(
        ContractError, match=r"at least one of 8 made-up rollouts .*errors only, the first one: no world"
    ):
        check_reward_model(NeedsWorld, tasks=tasks(), parts=Parts(tasks=tasks()))
    still = check_reward_model(AsksWorld, tasks=tasks())  # a world in which nothing moves stands in, and that is said
    assert any(line.startswith("not shown: what it makes of a world in which things move") for line in still)
    world: Any = object()
    assert check_reward_model(NeedsWorld, tasks=tasks(), parts=Parts(world_model=world, tasks=tasks()))


class NeedsWorld(Brighter):
    """Asks the run's world model."""

    def attach(self, parts: Parts) -> None:
        assert parts.reward_model is self
        self.world = parts.world_model

    def judge(self, rollout: Rollout) -> Reward:
        return Reward(None, error="no world") if self.world is None else super().judge(rollout)


class AsksWorld(NeedsWorld):
    """Imagines something in it."""

    def judge(self, rollout: Rollout) -> Reward:
        if len(rollout.frames_TVHWC):
            self.world.reset([rollout.task])
        return super().judge(rollout)


def test_what_could_not_be_shown_is_said() -> None:
    verified = check_reward_model(broken(judge=lambda self, rollout: Reward(1.0)), tasks=tasks())
    assert "a reward does not depend on the other rollouts" not in verified
    assert "not shown: order and independence, since all judged rollouts got the reward 1" in verified
    assert "not shown: that a failed judgement is not a zero, since even a blank was judged" in verified
    verified = check_reward_model(Brighter, tasks=tasks(), deterministic=False)
    assert "not shown: order and independence, of a judge whose answers are samples" in verified
    assert "submit agrees with score" not in verified
    never = broken(judge=lambda self, rollout: Reward(0.0))
    verified = check_reward_model(never, tasks=tasks())
    assert "not shown: that a failed judgement is not a zero, since every reward was 0" in verified
