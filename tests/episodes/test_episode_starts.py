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


def test_starts_anywhere(episodes):
    """Each branch from a frame of its own, which its id names; the last actions are left to be taken again."""
    tasks = list(starts(branches=40, actions_left=6, context=2))
    assert len(tasks) == 40 * len(episodes) == len({task.id for task in tasks})
    for number, episode in enumerate(episodes):
        mine = tasks[40 * number : 40 * number + 40]
        places = [int(task.id.rpartition("@")[2].partition("#")[0]) for task in mine]
        latest = len(episode.frames_TVHWC) - 7
        assert min(places) < 0.2 * latest and 0.8 * latest < max(places) <= latest
        assert len(set(places)) > 10
        for task, place in zip(mine, places, strict=True):
            shown = [0, place] if place else [0]
            assert (torch.equal(task.view(), episode.view()[shown]) and task.start is None) or place == 0
    again = [task.id for task in starts(branches=40, actions_left=6, context=2)]
    assert again == [task.id for task in tasks] != [task.id for task in starts(branches=40, actions_left=6, seed=1)]


def test_starts_in_an_episode_that_is_too_short():
    with pytest.raises(
        DataError, match=r"has 23 frames, too few for 30 actions after a start and 0 frames before it. Lower"
    ):
        starts(branches=1, actions_left=30)[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"keyframe": 3, "branches": 2}, "keyframe says where episodes start, and branches draws it"),
        ({"actions_left": 4}, "actions_left is 4; it is of drawn starts: set branches"),
    ],
)
def test_options_that_say_nothing_together(args, message):
    with pytest.raises(ConfigError, match=message):
        starts(**args)


@pytest.mark.parametrize("args", [{"keyframe": -1}, {"keyframe": 1.5}, {"context": 0}, {"context": 3}])
def test_bad_options(args):
    with pytest.raises(ConfigError, match=r"keyframe|context"):
        starts(**args)


def test_an_unknown_source():
    with pytest.raises(PluginError, match="Did you mean 'lerobot'"):
        registries().datasets.build("episode-starts", {"episodes": {"name": "lerobo"}})


CROPS = {"name": SOURCE["name"], "args": {**SOURCE["args"], "window": 2, "crops": "first"}}
TINY = {"image_size": [32, 32], "channels": 3, "patch_size": 8, "dim": 32, "layers": 1, "heads": 2}
TINY |= {"robot_action_dim": 7, "action_dim": 8, "window": 2, "prediction": "change", "codec": "pixels"}


@pytest.mark.parametrize(
    "episodes",
    [
        CROPS,
        {"name": "several-episodes", "args": {"of": [SOURCE, CROPS]}},
        {
            "name": "replayed-episodes",
            "args": {"episodes": CROPS, "world_model": {"name": "worldgym", "args": TINY}},
        },
    ],
)
def test_a_crop_is_no_expert(episodes):
    """Its actions end with it, and nobody knows whether its episode succeeded."""
    with pytest.raises(ConfigError, match=r"expert: the episodes of '[a-z-]+' are crops.*Leave window and crops out"):
        starts(episodes=episodes, expert=True)
    assert len(starts(episodes=episodes))  # without experts, crops are what makes starts cheap


def test_a_window_as_long_as_the_episodes_cuts_nothing_off(episodes):
    whole = {**SOURCE["args"], "window": len(episodes[1].frames_TVHWC)}  # the shorter episode is left out
    tasks = starts(episodes={"name": SOURCE["name"], "args": whole}, expert=True)
    assert [len(task.expert.actions_TA) for task in tasks] == [len(episodes[1].actions_TA)]


@pytest.mark.parametrize("option", ["keyframe", "branches"])
def test_what_counts_in_crops_is_told(option, caplog):
    starts(**{option: 1})
    assert not caplog.records
    starts(episodes=CROPS, **{option: 1})
    assert f"are crops, and {option} counts frames of the crop" in caplog.text
