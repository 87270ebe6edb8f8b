"""The contract of reward models."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gymnast_core.interfaces import RewardModel
from gymnast_core.testing.component import can_save, check_component, reloaded
from gymnast_core.testing.contract import Contract, close, instance
from gymnast_core.testing.making import make_rollouts, make_tasks
from gymnast_core.types import Reward, Rollout, Task

PATIENCE_S = 600.0
"""Seconds that `submit` may take."""


def check_reward_model(
    reward_model: RewardModel | Callable[[], RewardModel],
    *,
    tasks: Sequence[Task] | None = None,
    image_size: int = 64,
    action_dim: int = 7,
    deterministic: bool = True,
    tolerance: float = 1e-3,
    unjudgeable: Sequence[Rollout] | None = None,
    reload: Callable[[Path], RewardModel] | None = None,
) -> list[str]:
    """Check `score`, `submit` and, where it exists, `save`.

    `deterministic=False` skips comparing calls, for judges that sample their answers. `unjudgeable` are rollouts that
    must come back as errors; without them some are made up that show and ask nothing (no frame, no instruction), which
    may be judged (by chance, by the actions), but not all as the same failure. `reload` builds the judge from a saved
    folder; by default its `Config` is given `checkpoint=FOLDER`.
    """
    judge = instance(reward_model)
    contract = Contract(judge, RewardModel)
    rollouts = make_rollouts(tasks or make_tasks(4, image_size), action_dim)
    with contract.untouched("score", rollouts=rollouts):
        rewards = judge.score(rollouts)
    contract.verified.append("rollouts are not modified")
    _expect_rewards(contract, rewards, len(rollouts))
    for rollout, reward in zip(rollouts, rewards, strict=True):
        within = reward.finish_step is None or reward.finish_step <= rollout.horizon
        contract.expect(within, "score", f"a finish_step of at most {rollout.horizon}, the rollout's actions", reward)
    _expect_rewards(contract, judge.score([]), 0)
    contract.verified.append("one Reward per rollout, with a value or an error")

    def expect_same(found: Sequence[Reward], method: str, what: str) -> None:
        same = all(close(a.value, b.value, tolerance) for a, b in zip(rewards, found, strict=True))
        contract.expect(same, method, what, (rewards, found))

    if deterministic:
        expect_same([judge.score([rollout])[0] for rollout in rollouts], "score", "the same reward on its own")
        backwards = judge.score(rollouts[::-1])[::-1]
        expect_same(backwards, "score", "the same reward in reverse order as in the batch")
        contract.verified += ["rewards are in order", "a reward does not depend on the other rollouts"]
    with contract.working("submit", "a Future of the rewards"):
        submitted = judge.submit(rollouts).result(timeout=PATIENCE_S)
    _expect_rewards(contract, submitted, len(rollouts), "submit")
    if deterministic:
        expect_same(submitted, "submit", "the rewards of `score`")
        contract.verified.append("submit agrees with score")
    _check_errors(contract, judge, rollouts, rewards, unjudgeable)
    if can_save(judge):
        with tempfile.TemporaryDirectory() as folder:
            judge.save(Path(folder))
            again = reloaded(contract, judge, Path(folder), reload)
            if again is not None:
                expect_same(again.score(rollouts), "save", "the same reward model when loaded")
                contract.verified.append("a saved reward model loads as the same reward model")
    check_component(contract, judge)
    return contract.verified


def _expect_rewards(contract: Contract, found: Any, count: int, method: str = "score") -> None:
    is_list = isinstance(found, list) and all(isinstance(reward, Reward) for reward in found)
    contract.expect(is_list and len(found) == count, method, f"a list of {count} Rewards", found)
    for reward in found:
        exclusive = (reward.value is None) != (reward.error is None)
        contract.expect(exclusive, method, "either a value or an error", reward)
        contract.expect(math.isfinite(reward.cost_usd) and reward.cost_usd >= 0, method, "a cost in USD", reward)


def _check_errors(
    contract: Contract,
    judge: RewardModel,
    rollouts: Sequence[Rollout],
    rewards: Sequence[Reward],
    unjudgeable: Sequence[Rollout] | None,
) -> None:
    hopeless = list(unjudgeable or [_blank(rollout, i) for rollout in rollouts for i in range(2)])
    with contract.working("score", "a Reward with `error` set for a rollout without a frame or an instruction"):
        # Beside a sound rollout: one that cannot be judged must not cost the others their reward.
        found = judge.score([*hopeless, rollouts[0]])
    _expect_rewards(contract, found, len(hopeless) + 1)
    errors = [reward.error for reward in found[:-1]]
    if unjudgeable:
        wanted = "errors, never values, for rollouts that cannot be judged"
        contract.expect(None not in errors, "score", wanted, found[:-1])
    failures = [reward.value == 0.0 for reward in [*found[:-1], *rewards]]
    all_zero = all(failures[: len(hopeless)]) and not all(failures)
    wanted = "an error for what cannot be judged (no frame, no instruction), never a zero"
    contract.expect(not all_zero, "score", wanted, "the value 0 for each")
    lost = rewards[0].error is None and found[-1].error is not None
    contract.expect(not lost, "score", "the reward of a sound rollout beside one that cannot be judged", found[-1])
    contract.verified.append("a judgement that failed is not a zero, and costs no other")


def _blank(rollout: Rollout, index: int) -> Rollout:
    frames_THWC = rollout.frames_THWC[:0]
    task = Task(f"blank-{rollout.task.id}-{index}", "", frames_THWC)
    return replace(rollout, task=task, frames_THWC=frames_THWC, actions_NLA=torch.full_like(rollout.actions_NLA, index))
