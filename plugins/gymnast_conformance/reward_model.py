"""The contract of reward models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gymnast_conformance.contract import Contract, close, instance
from gymnast_conformance.making import make_rollouts, make_tasks
from gymnast_core.interfaces import RewardModel
from gymnast_core.types import Reward, Task


def check_reward_model(
    reward_model: RewardModel | Callable[[], RewardModel],
    *,
    tasks: Sequence[Task] | None = None,
    image_size: int = 64,
    action_dim: int = 7,
    deterministic: bool = True,
    tolerance: float = 1e-3,
) -> list[str]:
    """Check `score`. `deterministic=False` skips comparing calls, for judges that sample their answers."""
    judge = instance(reward_model)
    contract = Contract(judge, RewardModel)
    rollouts = make_rollouts(tasks or make_tasks(4, image_size), action_dim)
    with contract.untouched("score", rollouts=rollouts):
        rewards = judge.score(rollouts)
    contract.verified.append("rollouts are not modified")

    def expect_rewards(found: Any, count: int) -> None:
        is_list = isinstance(found, list) and all(isinstance(reward, Reward) for reward in found)
        contract.expect(is_list and len(found) == count, "score", f"a list of {count} Rewards", found)
        for reward in found:
            exclusive = (reward.value is None) != (reward.error is None)
            contract.expect(exclusive, "score", "either a value or an error", reward)
            contract.expect(math.isfinite(reward.cost_usd) and reward.cost_usd >= 0, "score", "a cost", reward)

    expect_rewards(rewards, len(rollouts))
    expect_rewards(judge.score([]), 0)
    contract.verified.append("one Reward per rollout, with a value or an error")
    if deterministic:
        alone = [judge.score([rollout])[0] for rollout in rollouts]
        backwards = judge.score(rollouts[::-1])[::-1]
        for what, again in (("on its own", alone), ("in reverse order", backwards)):
            same = all(close(a.value, b.value, tolerance) for a, b in zip(rewards, again, strict=True))
            contract.expect(same, "score", f"the same reward {what} as in the batch", (rewards, again))
        contract.verified += ["rewards are in order", "a reward does not depend on the other rollouts"]
    return contract.verified
