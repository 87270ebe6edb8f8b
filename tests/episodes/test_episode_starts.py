"""Tasks that start where recorded episodes do."""

from __future__ import annotations

import pytest
import torch
from clips import BRIDGE, episodes_of

from gymnast_core.errors import ConfigError, DataError, PluginError
from gymnast_core.plugins.compose import registries

SOURCE = {"name": "worldgym-episodes", "args": {"path": str(BRIDGE), "instruction": "lift"}}


def starts(**args):
    return registries().datasets.build("episode-starts", {"episodes": SOURCE, **args}).tasks()


@pytest.fixture(scope="module")
def episodes():
    return list(episodes_of(SOURCE["name"], **SOURCE["args"]))


def test_first_frames(episodes):
    tasks = starts(partial_credit_criteria="touched")
    assert [task.id for task in tasks] == [episode.id for episode in episodes]
    for task, episode in zip(tasks, episodes, strict=True):
        assert task.instruction == "lift"
        assert task.partial_credit_criteria == "touched"
        assert task.actions_TA is None
        assert torch.equal(task.view(), episode.view()[:1])


def test_a_keyframe_with_its_context(episodes):
    for task, episode in zip(starts(keyframe=10, context=4), episodes, strict=True):
        assert task.id == f"{episode.id}@10"
        assert torch.equal(task.view(), episode.view()[[0, 8, 9, 10]])
        # Each action led to the frame beside it.
        assert torch.equal(task.actions_TA, episode.actions_TA[[7, 8, 9]])


def test_a_keyframe_alone_or_as_a_fraction(episodes):
    alone = starts(keyframe=0.5)
    assert [task.id.rpartition("@")[2] for task in alone] == ["11", "24"]
    assert torch.equal(alone[1].view(), episodes[1].view()[24:25])
    assert alone[1].actions_TA is None


def test_context_longer_than_the_past(episodes):
    task = starts(keyframe=2, context=8)[0]
    assert torch.equal(task.view(), episodes[0].view()[:3])
    assert torch.equal(task.actions_TA, episodes[0].actions_TA[:2])


def test_a_keyframe_beyond_the_episode():
    tasks = starts(keyframe=30)
    assert tasks[1].id.endswith("@30")
    with pytest.raises(DataError, match=r"has 23 frames, no frame 30. Give the keyframe as a fraction"):
        tasks[0]


@pytest.mark.parametrize("args", [{"keyframe": -1}, {"keyframe": 1.5}, {"context": 0}, {"context": 3}])
def test_bad_options(args):
    with pytest.raises(ConfigError, match=r"keyframe|context"):
        starts(**args)


def test_an_unknown_source():
    with pytest.raises(PluginError, match="Did you mean 'lerobot'"):
        registries().datasets.build("episode-starts", {"episodes": {"name": "lerobo"}})
