"""The contract of reward models."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from gymnast_core.frames import EpisodeFrames, Undecoded
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.testing.component import can_save, check_component, check_state, reloaded
from gymnast_core.testing.contract import Contract, close, instance
from gymnast_core.testing.making import COURSES, make_group, make_tasks
from gymnast_core.testing.stand_ins import Nothing, StillWorld
from gymnast_core.testing.trainable import check_trainable, make_episodes
from gymnast_core.types import Needs, Reward, Rollout, Task

CHUNK = 4
"""Actions, of which made-up episodes have some more, to train on."""
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
    parts: Parts | None = None,
) -> list[str]:
    """Check `score`, `submit`, `state_dict` and, where they exist, `save`, `training_loss` and `validate`. Lines that
    begin with "not shown" say what could not be seen of this reward model.

    Of each task four rollouts are made up: still, half-done, finished, and noise; the world knows of the first three
    whether they succeeded. At least one must be judged: give `tasks` that the judge can work with, and the `parts` of a
    run if it needs its world model or policy; without them it is given a world in which nothing ever moves.
    `deterministic=False` skips comparing calls, for judges that sample their answers. `unjudgeable` are rollouts that
    must come back as errors; without them some are made up that show and ask nothing (no frame, no instruction), which
    may be judged (by chance, by the actions), but not all as the same failure. `reload` builds the judge from a saved
    folder; by default its `Config` is given `checkpoint=FOLDER`.
    """
    judge = instance(reward_model)
    contract = Contract(judge, RewardModel)
    contract.expect(judge.kind in ("success", "score"), "kind", '"success" or "score"', repr(judge.kind))
    tasks = tasks or make_tasks(2, image_size)
    still = StillWorld(Nothing())
    judge.attach(replace(parts or Parts(world_model=still, tasks=tasks), reward_model=judge))
    rollouts = [rollout for index, task in enumerate(tasks) for rollout in make_group(task, index, action_dim)]
    wanted = "rewards that can be: each a value, or an error with the reason (what it cannot judge must not raise)"
    with contract.untouched("score", rollouts=rollouts), contract.working("score", wanted):
        rewards = judge.score(rollouts)
    contract.verified.append("rollouts are not modified")
    _expect_rewards(contract, rewards, len(rollouts))
    _expect_values(contract, judge.kind, rollouts, rewards)
    _expect_rewards(contract, judge.score([]), 0)
    contract.verified.append("one Reward per rollout, with a value or an error")
    if deterministic:
        _check_neighbours(contract, judge, rollouts, rewards, tolerance)
    else:
        contract.verified.append("not shown: order and independence, of a judge whose answers are samples")
    _check_submit(contract, judge, rollouts, rewards if deterministic else None, tolerance)
    _check_looks(contract, judge, rollouts)
    _check_errors(contract, judge, rollouts, rewards, unjudgeable)
    check_state(contract, judge)
    if deterministic:
        _expect_same(contract, rewards, judge.score(rollouts), tolerance, "load_state_dict", "the rewards of before")
    _check_saved(contract, judge, rollouts, rewards, tolerance, reload)
    episodes = make_episodes(Needs(), action_dim, CHUNK, image_size, [task.instruction for task in tasks])
    check_trainable(contract, judge, episodes, given=False)
    check_component(contract, judge, with_state=False)
    if still.was_asked:
        contract.verified.append(
            "not shown: what it makes of a world in which things move (gymnast check … --world NAME, or parts=…)"
        )
    return contract.verified


def _check_submit(
    contract: Contract,
    judge: RewardModel,
    rollouts: Sequence[Rollout],
    expected: Sequence[Reward] | None,
    tolerance: float,
) -> None:
    """`expected` are the rewards of `score`, where the same ones can be expected again."""
    with contract.working("submit", "a Future of the rewards"):
        submitted = judge.submit(rollouts).result(timeout=PATIENCE_S)
    _expect_rewards(contract, submitted, len(rollouts), "submit")
    if expected is not None:
        _expect_same(contract, expected, submitted, tolerance, "submit", "the rewards of `score`")
        contract.verified.append("submit agrees with score")


def _check_looks(contract: Contract, judge: RewardModel, rollouts: Sequence[Rollout]) -> None:
    """That nobody has to make frames that it does not announce to look at."""
    made: set[int] = set()

    def unmade(rollout: Rollout) -> Rollout:
        whole_TVHWC = rollout.frames_TVHWC

        def decode(places_BL: Tensor) -> Tensor:
            made.update(places_BL.flatten().tolist())
            return whole_TVHWC[places_BL]

        later = Undecoded(torch.arange(1, len(whole_TVHWC))[None], decode)
        return replace(rollout, frames_TVHWC=cast(Tensor, EpisodeFrames(whole_TVHWC[0], later, {})))

    judge.score([unmade(rollout) for rollout in rollouts])
    count = rollouts[0].frame_count
    announced = {range(count)[place] for place in judge.looks_at(judge.config, count)}
    wanted = f"the places of the frames that score looks at, {sorted(made)} of {count} (and 0, perhaps)"
    contract.expect(made <= announced | {0}, "looks_at", wanted, sorted(announced))
    contract.verified.append(f"it looks at {len(announced)} of {count} frames")


def _check_saved(
    contract: Contract, judge: RewardModel, rollouts: Sequence[Rollout], rewards: Sequence[Reward], tolerance: float,
    reload: Callable[[Path], RewardModel] | None,
) -> None:  # fmt: skip
    if not can_save(judge):
        return
    with tempfile.TemporaryDirectory() as folder:
        judge.save(Path(folder))
        again = reloaded(contract, judge, Path(folder), reload)
        if again is not None:
            wanted = "the same reward model when loaded"
            _expect_same(contract, rewards, again.score(rollouts), tolerance, "save", wanted)
            contract.verified.append("a saved reward model loads as the same reward model")


def _expect_rewards(contract: Contract, found: Any, count: int, method: str = "score") -> None:
    is_list = isinstance(found, list) and all(isinstance(reward, Reward) for reward in found)
    said = f"{len(found)} of them" if is_list else found
    contract.expect(is_list and len(found) == count, method, f"a list of {count} Rewards", said)
    for reward in found:
        exclusive = (reward.value is None) != (reward.error is None)
        contract.expect(exclusive, method, "either a value or an error", reward)
        known = reward.cost_usd is None or (math.isfinite(reward.cost_usd) and reward.cost_usd >= 0)
        contract.expect(known, method, "a cost in USD, or None", reward)


def _expect_values(contract: Contract, kind: str, rollouts: Sequence[Rollout], rewards: Sequence[Reward]) -> None:
    """That something was judged at all, and what the values must be."""
    values = [reward.value for reward in rewards if reward.value is not None]
    if not values:
        wanted = (
            f"at least one of {len(rewards)} made-up rollouts to be judged; without that nothing can be shown (give "
            "tasks that it can judge: gymnast check … --tasks DATASET, or tasks=… and parts=… in Python)"
        )
        said = f"0 of {len(rewards)} were judged, errors only, the first one: {rewards[0].error}"
        contract.expect(False, "score", wanted, said)
    for rollout, reward in zip(rollouts, rewards, strict=True):
        within = reward.value is None or kind != "success" or 0.0 <= reward.value <= 1.0
        contract.expect(within, "kind", 'success in [0, 1], or kind = "score"', reward)
        within = reward.finish_step is None or reward.finish_step <= rollout.horizon
        contract.expect(within, "score", f"a finish_step of at most {rollout.horizon}, the rollout's actions", reward)
        if reward.step_values_S is not None:
            contract.tensor(reward.step_values_S, "score", "step_values_S", (rollout.horizon,), torch.float32)
    contract.verified.append(f"{len(values)} of {len(rewards)} rollouts judged, values of the kind {kind!r}")
    if any(reward.step_values_S is not None for reward in rewards):
        contract.verified.append("step_values_S rewards each action")


def _expect_same(
    contract: Contract, rewards: Sequence[Reward], found: Sequence[Reward], tolerance: float, method: str, what: str
) -> None:
    for place, (a, b) in enumerate(zip(rewards, found, strict=True)):
        said = (
            f"rollout {place}: {_said(a)} before, {_said(b)} now (if its answers are samples: --sampled, or "
            "deterministic=False)"
        )
        contract.expect(close(a.value, b.value, tolerance), method, what, said)
    for a, b in zip(rewards, found, strict=True):
        if a.step_values_S is None or b.step_values_S is None:
            same = a.step_values_S is b.step_values_S
        else:
            same = torch.allclose(a.step_values_S, b.step_values_S, rtol=0.0, atol=tolerance)
        contract.expect(same, method, f"{what}, step_values_S included", (a, b))


def _said(reward: Reward) -> str:
    return f"the error {reward.error!r}" if reward.value is None else f"{reward.value:g}"


def _check_neighbours(
    contract: Contract, judge: RewardModel, rollouts: Sequence[Rollout], rewards: Sequence[Reward], tolerance: float
) -> None:
    """A reward is the same alone, in another order, and beside others of its own course only."""
    alone = [judge.score([rollout])[0] for rollout in rollouts]
    _expect_same(contract, rewards, alone, tolerance, "score", "the same reward on its own")
    backwards = judge.score(rollouts[::-1])[::-1]
    wanted = "the same reward in reverse order as in the batch"
    _expect_same(contract, rewards, backwards, tolerance, "score", wanted)
    for course, name in enumerate(COURSES):
        mine = slice(course, None, len(COURSES))
        beside = judge.score(rollouts[mine])
        wanted = f"the same reward beside {name} rollouts only"
        _expect_same(contract, rewards[mine], beside, tolerance, "score", wanted)
    values = Counter(reward.value for reward in rewards if reward.value is not None)
    if len(values) > 1:
        contract.verified += ["rewards are in order", "a reward does not depend on the other rollouts"]
    else:
        (value,) = values
        contract.verified.append(
            f"not shown: order and independence, since all judged rollouts got the reward {value:g}"
        )


def _check_errors(
    contract: Contract,
    judge: RewardModel,
    rollouts: Sequence[Rollout],
    rewards: Sequence[Reward],
    unjudgeable: Sequence[Rollout] | None,
) -> None:
    hopeless = list(unjudgeable or [_blank(rollout, i) for rollout in rollouts[:4] for i in range(2)])
    sound = next(index for index, reward in enumerate(rewards) if reward.value is not None)
    with contract.working("score", "a Reward with `error` set for a rollout without a frame or an instruction"):
        # Beside a sound rollout: one that cannot be judged must not cost the others their reward.
        found = judge.score([*hopeless, rollouts[sound]])
    _expect_rewards(contract, found, len(hopeless) + 1)
    errors = [reward.error for reward in found[:-1]]
    if unjudgeable:
        wanted = "errors, never values, for rollouts that cannot be judged"
        contract.expect(None not in errors, "score", wanted, found[:-1])
    failures = [reward.value == 0.0 for reward in [*found[:-1], *rewards]]
    all_zero = all(failures[: len(hopeless)]) and not all(failures)
    wanted = "an error for what cannot be judged (no frame, no instruction), never a zero"
    contract.expect(not all_zero, "score", wanted, "the value 0 for each")
    wanted = "the reward of a sound rollout beside one that cannot be judged"
    contract.expect(found[-1].error is None, "score", wanted, found[-1])
    if all(failures):
        contract.verified.append("not shown: that a failed judgement is not a zero, since every reward was 0")
    elif not any(errors):
        contract.verified.append("not shown: that a failed judgement is not a zero, since even a blank was judged")
    else:
        contract.verified.append("a judgement that failed is not a zero, and costs no other")


def _blank(rollout: Rollout, index: int) -> Rollout:
    frames_TVHWC = rollout.frames_TVHWC[:0]
    task = Task(f"blank-{rollout.task.id}-{index}", "", frames_TVHWC, rollout.cameras)
    actions_NLA = torch.full_like(rollout.actions_NLA, index)
    return replace(rollout, task=task, frames_TVHWC=frames_TVHWC, actions_NLA=actions_NLA, outcome_S=None)
