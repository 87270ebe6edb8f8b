"""Which rollouts become videos, and what the index says of them."""

from __future__ import annotations

import json

import fake_run
import pytest

from gymnast_core.errors import DataError
from gymnast_report import hooks
from gymnast_report.gallery import balanced, read_clips, same_tasks


def test_half_of_the_chosen_are_successes_where_there_are_enough():
    values = [0.0, 0.0, None, 1.0, 0.0, 1.0, 1.0]
    rollouts = [fake_run.rollout(i) for i in range(len(values))]
    chosen = [values[i] for i in balanced(rollouts, fake_run.rewards(values), 4)]
    assert sorted(chosen) == [0.0, 0.0, 1.0, 1.0]


def test_the_rest_is_filled_up_with_what_there_is():
    values = [1.0, None, 0.0, 1.0, 1.0]
    rollouts = [fake_run.rollout(i) for i in range(len(values))]
    chosen = [values[i] for i in balanced(rollouts, fake_run.rewards(values), 4)]
    assert chosen.count(1.0) == 3 and chosen.count(0.0) == 1
    assert len(balanced(rollouts, fake_run.rewards(values), 9)) == 5


def test_evaluations_show_the_same_tasks_whatever_their_order():
    rollouts = [fake_run.rollout(i) for i in range(9)]
    first = [rollouts[i].task.id for i in same_tasks(rollouts, [], 4)]
    again = rollouts[::-1]
    assert [again[i].task.id for i in same_tasks(again, first, 4)] == first
    instructions = [rollouts[i].task.instruction for i in same_tasks(rollouts, [], 3)]
    assert len(set(instructions)) == 3


def test_first_fifth_and_last_iterations_are_kept(finished_run):
    config = fake_run.run_config(finished_run)
    clips = read_clips(finished_run / "videos")
    training = {clip.phase for clip in clips if clip.kind == "imagined"}
    assert training == {"iteration-000001", "iteration-000005", "iteration-000007"}
    assert len(clips) == 3 * 4 + 3 * config.evaluation.videos
    tasks = [[clip.task for clip in clips if clip.phase == phase] for phase in ("before", "after")]
    assert tasks[0] == tasks[1]


def test_repeating_an_iteration_after_a_kill_doubles_nothing(run_copy):
    config = fake_run.run_config(run_copy)
    videos = run_copy / "videos"
    before = sorted(path.name for path in videos.iterdir())
    (videos / "iteration-000005-imagined-02.mp4").unlink()
    fake_run.train(config, 4)
    assert sorted(path.name for path in videos.iterdir()) == before
    files = [clip.file for clip in read_clips(videos)]
    assert len(files) == len(set(files)) == sum(name.endswith(".mp4") for name in before)


def test_fewer_rollouts_than_before_leave_no_stale_video(run_copy):
    config = fake_run.run_config(run_copy)
    videos = run_copy / "videos"
    hooks.gymnast_rewards_scored(config, [fake_run.rollout(0)], fake_run.rewards([1.0]), 4)
    assert [path.name for path in videos.glob("iteration-000005-imagined-*.mp4")] == [
        "iteration-000005-imagined-01.mp4"
    ]


def test_an_unscored_rollout_keeps_its_error_and_gets_no_value(tmp_path):
    config = fake_run.run_config(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    hooks.gymnast_rewards_scored(config, [fake_run.rollout(0)], fake_run.rewards([None]), 0)
    (entry,) = json.loads((tmp_path / "videos" / "index.json").read_text())
    assert entry["value"] is None and "503" in entry["error"]


def test_without_a_run_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = fake_run.run_config(None)
    hooks.gymnast_rewards_scored(config, [fake_run.rollout(0)], fake_run.rewards([1.0]), 0)
    hooks.gymnast_evaluation_done(config, "before", [fake_run.rollout(0)], fake_run.rewards([1.0]))
    hooks.gymnast_run_done(config, {})
    assert not list(tmp_path.iterdir())


def test_training_inside_a_simulator_is_not_called_imagined(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    rollouts = [fake_run.rollout(0, outcome=1.0)]
    hooks.gymnast_rewards_scored(fake_run.run_config(tmp_path), rollouts, fake_run.rewards([1.0]), 0)
    assert [clip.kind for clip in read_clips(tmp_path / "videos")] == ["environment"]


def test_a_damaged_index_is_named(tmp_path):
    (tmp_path / "index.json").write_text('[{"file": 1}]')
    with pytest.raises(DataError, match=r"index\.json is not a video index"):
        read_clips(tmp_path)
