"""Asking a reward model: once, again about what it could not judge, and never believing what breaks its contract."""

import reprlib
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

from gymnast_core.errors import ContractError, GymnastError
from gymnast_core.futures import when_all
from gymnast_core.interfaces import RewardModel
from gymnast_core.money import total_usd
from gymnast_core.types import Reward, Rollout


class RewardsFailing(GymnastError):
    """Too many rollouts could not be judged; the run stops and can be resumed."""


def checked(reward_model: RewardModel, rollouts: Sequence[Rollout], rewards: Sequence[Reward]) -> list[Reward]:
    """The rewards. Raises `ContractError` unless there is one for each rollout, of the reward model's kind."""
    name = type(reward_model).__name__
    if reward_model.kind not in ("success", "score"):
        raise ContractError(f'{name}.kind is {reward_model.kind!r}; it must be "success" or "score".')
    if not isinstance(rewards, Sequence) or not all(isinstance(reward, Reward) for reward in rewards):
        raise ContractError(
            f"{name}.score returned {reprlib.repr(rewards)}; it returns a list of gymnast_core.types.Reward, one a "
            "rollout."
        )
    if len(rewards) != len(rollouts):
        raise ContractError(f"{name}.score returned {len(rewards)} rewards for {len(rollouts)} rollouts.")
    for rollout, reward in zip(rollouts, rewards, strict=True):
        if reward.value is not None and reward_model.kind == "success" and not 0.0 <= reward.value <= 1.0:
            raise ContractError(
                f"{name} gave the reward {reward.value}. Success lies in [0, 1]; a reward model of other numbers says "
                'kind = "score".'
            )
        steps_S = reward.step_values_S
        if steps_S is not None and steps_S.shape != (rollout.horizon,):
            raise ContractError(
                f"{name} gave step rewards of shape {tuple(steps_S.shape)} for a rollout of {rollout.horizon} actions."
            )
    return list(rewards)


def submit(reward_model: RewardModel, rollouts: Sequence[Rollout]) -> "Future[list[Reward]]":
    """Start to judge and return at once; cancelling the future stops it. Episodes that the world lost are never shown
    to a reward model: their rewards are errors."""
    sound = [rollout for rollout in rollouts if rollout.error is None]
    if len(sound) == len(rollouts):
        return _submitted(reward_model, rollouts)

    def merged(given: Sequence[Sequence[Reward]]) -> list[Reward]:
        rewards = iter(checked(reward_model, sound, given[0])) if sound else iter(())
        return [_lost(rollout) or next(rewards) for rollout in rollouts]

    if sound:
        return when_all([_submitted(reward_model, sound)], merged)
    nothing: Future[list[Reward]] = Future()
    nothing.set_result(merged([]))
    return nothing


def _submitted(reward_model: RewardModel, rollouts: Sequence[Rollout]) -> "Future[list[Reward]]":
    future = reward_model.submit(rollouts)
    if not isinstance(future, Future):
        raise ContractError(
            f"{type(reward_model).__name__}.submit returned {reprlib.repr(future)}; it returns a Future of the rewards."
        )
    return future


def judge(
    reward_model: RewardModel, rollouts: Sequence[Rollout], scored: "Future[list[Reward]] | None" = None, again: int = 0
) -> list[Reward]:
    """One reward a rollout: what was `submit`ted, or what the reward model says now.

    What could not be judged is asked once more, up to `again` times; costs add up.
    """
    given = (submit(reward_model, rollouts) if scored is None else scored).result()
    rewards = checked(reward_model, rollouts, given)
    for _ in range(again):
        unknown = [index for index, reward in enumerate(rewards) if reward.error is not None]
        unknown = [index for index in unknown if rollouts[index].error is None]
        if not unknown:
            break
        asked = [rollouts[index] for index in unknown]
        answers = checked(reward_model, asked, reward_model.score(asked))
        for index, reward in zip(unknown, answers, strict=True):
            rewards[index] = replace(reward, cost_usd=total_usd((reward.cost_usd, rewards[index].cost_usd)))
    return rewards


def _lost(rollout: Rollout) -> Reward | None:
    """The reward of an episode that the world lost; None for any other."""
    return None if rollout.error is None else Reward(None, error=f"The world lost this episode: {rollout.error}")


def refuse_failures(errors: Sequence[str], judged: int, limit: float, key: str) -> None:
    """Raises `RewardsFailing` if more than the share `limit` of `judged` rollouts came back with an error."""
    if len(errors) > limit * judged:
        raise RewardsFailing(
            f"{len(errors)} of {judged} rollouts could not be judged (limit {key}={limit}). Nothing was learned "
            f"from them. First error: {errors[0]}"
        )
