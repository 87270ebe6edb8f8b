"""A policy's imagined rollouts under labels that are true of their actions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Reward
from gymnast_episodes.conversion import Conversion, convert
from gymnast_episodes.writers import WriterOptions

TASKS = {"name": "tabletop", "args": {"split": "choosing", "count": 6, "image_size": 32}}
WORLD = {"name": "gymnasium", "args": {}}
"""The simulator itself: what it shows and what is true cannot differ."""
POLICY = {"name": "openvla-oft", "args": {"checkpoint": "plugins/gymnast_tabletop/checkpoints/policy"}}
GIVEN = {"tasks": TASKS, "world_model": WORLD, "policy": POLICY, "horizon": 16, "batch_size": 4}


def built(**changes):
    return registries().datasets.build("imagined-episodes", GIVEN | changes)


@pytest.fixture(scope="module")
def episodes():
    return list(built().episodes())


def test_frames_actions_and_outcome_belong_to_one_another(episodes) -> None:
    tasks = registries().datasets.build(**TASKS).tasks()
    world = registries().world_models.build(**WORLD)
    assert [episode.id for episode in episodes] == [task.id for task in tasks]
    for episode, task in zip(episodes, tasks, strict=True):
        assert (episode.instruction, episode.cameras) == (task.instruction, task.cameras)
        assert episode.actions_TA.shape == (16, 2) and episode.frames_TVHWC.shape[0] == 17
        state = world.reset([task], generator=torch.Generator())
        steps = [world.step(state, part[None]) for part in episode.actions_TA.split(4)]
        shown = torch.cat([step.frames_BLVHWC[0] for step in steps])
        assert torch.equal(episode.frames_TVHWC, torch.cat([task.frames_TVHWC[-1:], shown]))
        assert episode.success == bool(steps[-1].outcome_BL[0, -1])
    world.close()
    assert len({episode.success for episode in episodes}) == 2


def test_labels_are_the_environments_whatever_is_imagined(episodes) -> None:
    """A world in which blocks slide by themselves: its frames are other ones, the outcome is that of the actions."""
    inner = {"name": "gymnasium", "args": {}}
    wishful = built(world_model={"name": "tabletop-wishful", "args": {"world": inner, "share": 1.0, "slow": 2.0}})
    shown = list(wishful.episodes())
    assert any(
        not torch.equal(one.frames_TVHWC, other.frames_TVHWC) for one, other in zip(shown, episodes, strict=True)
    )
    judge = registries().reward_models.build("environment", {"always_replay": True})
    world = registries().world_models.build(**WORLD)
    tasks = registries().datasets.build(**TASKS).tasks()
    for episode, task in zip(shown, tasks, strict=True):
        state = world.reset([task], generator=torch.Generator())
        last = [world.step(state, part[None]) for part in episode.actions_TA.split(4)][-1]
        assert episode.success == bool(last.outcome_BL[0, -1])
    judge.close()
    world.close()


def test_the_same_seed_gives_the_same_episodes_in_any_order(episodes) -> None:
    again = built().episodes()
    assert torch.equal(again[5].actions_TA, episodes[5].actions_TA)
    assert torch.equal(again[0].actions_TA, episodes[0].actions_TA)
    other = built(seed=1).episodes()
    assert not torch.equal(other[0].actions_TA, episodes[0].actions_TA)


def test_what_nobody_can_label_is_an_error(monkeypatch) -> None:
    known = registries().reward_models.load("environment")
    monkeypatch.setattr(
        known, "score", lambda self, rollouts: [Reward(value=None, error="the arm is stuck") for _ in rollouts]
    )
    with pytest.raises(DataError, match="the arm is stuck"):
        built().episodes()[0]


def test_one_that_nobody_can_label_costs_no_other(monkeypatch, tmp_path: Path) -> None:
    """Its environment crashes: asked again in vain, it is left out, with a warning."""
    known = registries().reward_models.load("environment")
    score, asked = known.score, []

    def failing(self, rollouts):
        asked.append([rollout.task.id for rollout in rollouts])
        rewards = score(self, rollouts)
        return [
            Reward(None, error="the arm is stuck") if rollout.task.id == lost else reward
            for rollout, reward in zip(rollouts, rewards, strict=True)
        ]

    lost = registries().datasets.build(**TASKS).tasks()[1].id
    monkeypatch.setattr(known, "score", failing)
    job = Conversion("imagined-episodes", GIVEN, "lerobot-v3", tmp_path / "out", WriterOptions(fps=10, frames="png"))
    summary = convert(job)
    assert (summary["episodes"], summary["skipped"]) == (5, 1)
    assert asked[1] == [lost]
    with pytest.raises(DataError, match="the arm is stuck"):
        convert(replace(job, args=GIVEN | {"skip_bad": False}, out=tmp_path / "strict"))


def test_a_horizon_that_is_no_whole_number_of_chunks_is_refused() -> None:
    with pytest.raises(ConfigError, match="set horizon=16"):
        built(horizon=18)
