"""Tasks that carry an expert: the rest of a recorded episode, or what the tabletop's scripted one does."""

from __future__ import annotations

from pathlib import Path

import torch

from gymnast_core.plugins.registry import registries
from gymnast_core.rollouts.state import to_state
from gymnast_core.testing import check_dataset

BRIDGE = {"path": str(Path(__file__).parents[1] / "golden" / "episodes" / "bridge"), "instruction": "close the drawer"}


def starts(**args: object):
    episodes = {"name": "worldgym-episodes", "args": BRIDGE}
    return registries().datasets.build("episode-starts", {"episodes": episodes, **args})


def test_an_episodes_rest_is_the_expert() -> None:
    episode = registries().datasets.build("worldgym-episodes", BRIDGE).episodes()[0]
    for place, args in {0: {}, 3: {"keyframe": 3}}.items():
        task = starts(expert=True, **args).tasks()[0]
        assert task.expert is not None and torch.equal(task.expert.actions_TA, episode.actions_TA[place:])
        assert torch.equal(task.expert.frames_TVHWC[0], task.frames_TVHWC[-1])
    assert starts().tasks()[0].expert is None
    assert check_dataset(starts(expert=True, keyframe=0.5))


def test_nothing_comes_after_the_last_frame() -> None:
    length = len(registries().datasets.build("worldgym-episodes", BRIDGE).episodes()[0].actions_TA)
    assert starts(expert=True, keyframe=length).tasks()[0].expert is None


def test_the_tabletops_expert_fulfils_the_task_in_its_simulator() -> None:
    args = {"count": 6, "image_size": 32, "expert": "demonstrations"}
    tasks = [task for task in registries().datasets.build("tabletop", args).tasks() if task.expert is not None]
    assert len(tasks) >= 4
    world = registries().world_models.build("gymnasium", {})
    state = world.reset(tasks)
    actions_BLA = torch.stack([task.expert.actions_TA for task in tasks if task.expert is not None])
    step = world.step(state, actions_BLA)
    assert step.outcome_BL is not None and step.outcome_BL[:, -1].tolist() == [1.0] * len(tasks)
    for task, shown in zip(tasks, step.frames_BLVHWC, strict=True):
        assert task.expert is not None and torch.equal(task.expert.frames_TVHWC[1:], shown)
        assert torch.equal(task.expert.frames_TVHWC[0], task.frames_TVHWC[-1])
        to_state(task)  # fits into a snapshot
    world.close()
