"""Recording, tasks and episodes."""

import errno
import json
import os
import pickle
import re
import shlex

import gymnasium
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from gymnast_core.errors import ConfigError, DataError, StorageError
from gymnast_core.plugins.registry import registries
from gymnast_tabletop.datasets import TabletopEpisodes, TabletopTasks
from gymnast_tabletop.experts import BEHAVIOURS
from gymnast_tabletop.geometry import image_points
from gymnast_tabletop.instructions import HELD_OUT, parse
from gymnast_tabletop.record import Recording, main, record
from gymnast_tabletop.splits import SPLITS

FILES = ("frames.npy", "actions.npy", "states.npy", "episodes.json", "meta.json")


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings") / "play"
    record(Recording(episodes=40, actions=12, image_size=16), folder, workers=1)
    return folder


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings") / "demonstrations"
    record(Recording("slow-demonstrations", episodes=24, image_size=16, seed=1, actions=20), folder)
    return folder


def episodes(path, **args):
    return TabletopEpisodes(TabletopEpisodes.Config(path=str(path), **args)).episodes()


def test_the_number_of_workers_changes_nothing(tmp_path, demonstrations):
    settings = Recording("slow-demonstrations", episodes=24, image_size=16, seed=1, actions=20)
    record(settings, tmp_path / "two", workers=2)
    for name in FILES:
        assert (tmp_path / "two" / name).read_bytes() == (demonstrations / name).read_bytes(), name


def test_demonstrations_succeed_are_training_seeds_and_name_no_held_out_pair(demonstrations):
    listed = json.loads((demonstrations / "episodes.json").read_text())
    assert all(one["success"] and one["behaviour"] == "slow-demonstrations" for one in listed)
    assert all(one["seed"] in SPLITS["training"] for one in listed)
    assert not {parse(one["instruction"]) for one in listed} & set(HELD_OUT)
    assert len({one["seed"] for one in listed}) == len(listed)


def test_play_touches_blocks_and_recorded_actions_reproduce_it(play):
    from gymnast_tabletop.instructions import start_scene
    from gymnast_tabletop.simulation import Tabletop

    states = np.load(play / "states.npy")
    moved = np.linalg.norm(states[:, -1, [2, 3]] - states[:, 0, [2, 3]], axis=-1) > 0.01
    assert 0.1 < moved.mean() < 0.9
    frames, actions = np.load(play / "frames.npy"), np.load(play / "actions.npy")
    table = Tabletop(image_size=16)
    for i, one in enumerate(json.loads((play / "episodes.json").read_text())[:3]):
        table.reset(start_scene(one["seed"], 2))
        for action in actions[i]:
            table.step(action)
        np.testing.assert_array_equal(table.render(), frames[i, -1])


def test_a_disk_that_has_no_room_for_a_recording_is_one_error(tmp_path, monkeypatch):
    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # Before the first episode: memory that is mapped onto a full disk ends a process without a word.
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="play cannot be written: No space left on device"):
        record(Recording(episodes=2, actions=4, image_size=16), tmp_path / "play")
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_to_overwrite_and_leaves_nothing_behind(tmp_path):
    arguments = ["--episodes", "1", "--actions", "2", "--image-size", "8", "--out", str(tmp_path / "a")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2 and "exists already" in again.output
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with pytest.raises(ConfigError, match="No behaviour"):
        Recording(behaviour="plai")


@pytest.mark.parametrize("named", ["training", "held-out", "all", "blue-left", "yellow-top"])
def test_tasks_are_what_their_environment_shows(named):
    config = TabletopTasks.Config(split="reporting", count=6, image_size=16, pairs=named, n_blocks=3, horizon=9)
    tasks = TabletopTasks(config).tasks()
    assert len({task.id for task in tasks}) == 6
    for task in tasks:
        env = gymnasium.make(task.start.id, **task.start.args)
        observation, _ = env.reset(seed=task.start.seed, options=dict(task.start.options))
        np.testing.assert_array_equal(observation["image"], task.view()[-1].numpy())
        assert observation["instruction"] == task.instruction
        assert task.start.seed in SPLITS["reporting"] and env.unwrapped.horizon == 9
        if named != "all":
            assert (parse(task.instruction) in HELD_OUT) == (named != "training")
        if "-" in named and named != "held-out":
            assert task.instruction == "push the {} block to the {}".format(*named.split("-"))


def test_task_paraphrases_name_the_same_goal_in_other_words():
    plain = TabletopTasks(TabletopTasks.Config(count=3, image_size=8)).tasks()
    other = TabletopTasks(TabletopTasks.Config(count=3, image_size=8, template=2)).tasks()
    for one, two in zip(plain, other, strict=True):
        assert one.instruction != two.instruction and parse(one.instruction) == parse(two.instruction)
        assert torch.equal(one.frames_TVHWC, two.frames_TVHWC)


@pytest.mark.parametrize("bad", [{"split": "test"}, {"count": 0}, {"pairs": "none"}, {"template": 9}])
def test_bad_task_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        registries().datasets.build("tabletop", bad)


def test_whole_episodes_carry_what_was_recorded(demonstrations):
    read = episodes(demonstrations)
    actions, states = np.load(demonstrations / "actions.npy"), np.load(demonstrations / "states.npy")
    listed = json.loads((demonstrations / "episodes.json").read_text())
    assert len(read) == 24
    for i, episode in enumerate(read):
        assert episode.frames_TVHWC.shape == (21, 1, 16, 16, 3) and episode.frames_TVHWC.dtype == torch.uint8
        np.testing.assert_array_equal(episode.actions_TA.numpy(), actions[i])
        assert episode.instruction == listed[i]["instruction"]
        # A control step takes 0.1 s.
        assert episode.fps == 10 and episode.proprio_TP is None
        assert episode.success is True and episode.outcomes[episode.instruction] is True
        named = listed[i]["colours"].index(parse(episode.instruction).colour)
        expected = image_points(states[i])[:, [named, 1 - named, 2]]
        np.testing.assert_array_equal(np.nan_to_num(episode.points_TJ2.numpy(), nan=-1), expected)


def test_crops_cover_every_offset_and_judge_by_their_own_ends(play):
    whole, crops = episodes(play), episodes(play, window=5)
    assert len(crops) == 40 * 9
    assert torch.equal(crops[10].frames_TVHWC, whole[1].frames_TVHWC[1:6])
    assert torch.equal(crops[10].actions_TA, whole[1].actions_TA[1:5])
    assert len(episodes(play, window=5, crops="one")) == len(episodes(play, window=5, crops="first")) == 40
    assert crops[-1].id == crops[len(crops) - 1].id
    with pytest.raises(IndexError):
        crops[len(crops)]


def test_hindsight_names_blocks_that_are_there_and_finds_successes(play):
    own, hindsight = episodes(play), episodes(play, instructions="hindsight")
    for episode in hindsight:
        assert episode.instruction in episode.outcomes or not episode.outcomes
        assert episode.success == episode.outcomes.get(episode.instruction, episode.success)
        assert 1 <= len(episode.outcomes) <= 8
    assert sum(e.success for e in hindsight) >= sum(e.success for e in own)
    again = episodes(play, instructions="hindsight")
    assert [e.instruction for e in again] == [e.instruction for e in hindsight]
    trained = episodes(play, instructions="hindsight", pairs="training")
    assert not any(parse(text) in HELD_OUT for episode in trained for text in episode.outcomes)


def test_parts_split_whole_episodes(play):
    ids = {part: {e.id for e in episodes(play, part=part, validation_fraction=0.25)} for part in ("train", "all")}
    validation = {e.id for e in episodes(play, part="validation", validation_fraction=0.25)}
    assert len(validation) == 10 and ids["train"].isdisjoint(validation)
    assert ids["train"] | validation == ids["all"]


def test_several_recordings_are_one_and_travel_to_worker_processes(play, demonstrations):
    both = pickle.loads(pickle.dumps(episodes(play, also=[str(demonstrations)], window=4)))
    assert len(both) == 40 * 10 + 24 * 18
    assert both[400].id.startswith("demonstrations/") and both[399].id.startswith("play/")


def test_broken_recordings_are_refused(tmp_path, play):
    with pytest.raises(DataError, match=r"frames\.npy.* missing"):
        episodes(tmp_path)
    with pytest.raises(DataError, match="smaller window"):
        episodes(play, window=14)
    for name in FILES:
        (tmp_path / name).write_bytes((play / name).read_bytes())
    (tmp_path / "actions.npy").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        episodes(tmp_path)


def test_the_command_that_a_missing_recording_suggests_makes_what_the_presets_read(tmp_path):
    """Episodes of 20 actions at 32 pixels, and no behaviour or number that nobody chose."""
    with pytest.raises(DataError, match="missing") as caught:
        episodes(tmp_path / "slow-demos")
    (line,) = re.findall(r"`python -m gymnast_tabletop\.record (.*?)`", str(caught.value))
    assert "--behaviour BEHAVIOUR --episodes N" in line
    named = set(re.findall(r"([a-z-]+) \(\d+", str(caught.value)))
    assert named == {"slow-demonstrations", "play"} and named <= BEHAVIOURS.keys()
    words = shlex.split(line.replace("BEHAVIOUR", "slow-demonstrations").replace(" N ", " 2 "))
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = episodes(tmp_path / "slow-demos", part="all")
    assert len(found) == 2 and all(episode.success for episode in found)
    assert found[0].frames_TVHWC.shape == (21, 1, 32, 32, 3)
