"""Which rollouts become videos, and what the index says of them."""

from __future__ import annotations

import json
from dataclasses import replace

import fake_run
import pytest
import torch
from PIL import Image

from gymnast_core.errors import DataError
from gymnast_core.plugins import events
from gymnast_core.processes import Processes
from gymnast_pages.measure import Measure
from gymnast_report import hooks
from gymnast_report.gallery import balanced, read_clips, same_tasks
from gymnast_report.report import build_report


def test_half_of_the_chosen_are_successes_where_there_are_enough():
    values = [0.0, 0.0, None, 1.0, 0.0, 1.0, 1.0]
    rollouts = [fake_run.rollout(i) for i in range(len(values))]
    chosen = [values[i] for i in balanced(rollouts, fake_run.rewards(values), 4)]
    assert sorted(chosen) == [0.0, 0.0, 1.0, 1.0]


def test_half_a_success_is_a_failure_among_the_chosen():
    values = [1.0, 0.5, 1.0, 0.5]
    rollouts = [fake_run.rollout(i) for i in range(len(values))]
    assert sorted(balanced(rollouts, fake_run.rewards(values), 3)) == [0, 1, 3]


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


def test_the_filmed_tasks_are_those_of_the_first_batch_or_those_shown_before():
    rollouts = [fake_run.rollout(i) for i in (0, 1, 2, 3, 8)]
    assert [rollouts[i].group for i in same_tasks(rollouts, [], 9, below=3)] == [0, 1, 2]
    assert [rollouts[i].group for i in same_tasks(rollouts, ["task-008"], 3, below=3)] == [8, 0, 1]


def test_of_other_rewards_the_highest_and_the_lowest_are_shown():
    values = [-3.0, 7.5, None, 2.0, -1.0, 0.5]
    rollouts = [fake_run.rollout(i) for i in range(len(values))]
    chosen = balanced(rollouts, fake_run.rewards(values), 4, Measure("score", "j"))
    assert sorted(values[i] for i in chosen) == [-3.0, -1.0, 2.0, 7.5]


def test_of_several_processes_the_leader_alone_films(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    monkeypatch.setattr(Processes, "leads", False)
    fake_run.scored(fake_run.run_config(tmp_path), [fake_run.rollout(0)], [1.0], 0)
    assert not (tmp_path / "videos").exists()


def test_all_cameras_are_seen_in_one_video(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    one = fake_run.rollout(0)
    frames_TVHWC = torch.cat([one.frames_TVHWC, 255 - one.frames_TVHWC], dim=1)
    task = replace(one.task, frames_TVHWC=frames_TVHWC[:1], cameras=("front", "wrist"))
    both = replace(one, task=task, frames_TVHWC=frames_TVHWC, cameras=("front", "wrist"))
    fake_run.scored(fake_run.run_config(tmp_path), [both], [1.0], 0)
    with Image.open(next((tmp_path / "videos").glob("*.jpg"))) as poster:
        assert poster.size[0] == 2 * poster.size[1]


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
    fake_run.scored(config, [fake_run.rollout(0)], [1.0], 4)
    assert [path.name for path in videos.glob("iteration-000005-imagined-*.mp4")] == [
        "iteration-000005-imagined-01.mp4"
    ]


def test_an_unscored_rollout_keeps_its_error_and_gets_no_value(tmp_path):
    config = fake_run.run_config(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    fake_run.scored(config, [fake_run.rollout(0)], [None], 0)
    (entry,) = json.loads((tmp_path / "videos" / "index.json").read_text())
    assert entry["value"] is None and "503" in entry["error"]


def test_training_inside_a_simulator_is_not_called_imagined(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    rollouts = [fake_run.rollout(0, outcome=1.0)]
    fake_run.scored(fake_run.run_config(tmp_path), rollouts, [1.0], 0)
    assert [clip.kind for clip in read_clips(tmp_path / "videos")] == ["environment"]


@pytest.fixture
def measured_in_imagination(tmp_path):
    """Iteration 5 of a run was filmed, and so was the evaluation after it, in a learned world like the training."""
    config = fake_run.run_config(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    fake_run.train(config, 4)
    rollouts = [fake_run.rollout(i, seed=3) for i in range(6)]
    hooks.gymnast_evaluation_done(
        events.EvaluationDone(
            config, tmp_path, 5, fake_run.parts("success"), "iteration-000005", "worldgym", rollouts,
            fake_run.rewards([1.0] * 6),
        )
    )  # fmt: skip
    return tmp_path


def test_an_evaluation_between_iterations_leaves_the_films_of_the_iteration(measured_in_imagination):
    videos = measured_in_imagination / "videos"
    clips = read_clips(videos)
    assert [(clip.of_training, clip.when) for clip in clips] == [
        *[(True, "iteration 5")] * 4, *[(False, "evaluation after iteration 5")] * 6
    ]  # fmt: skip
    assert len({clip.file for clip in clips}) == len(list(videos.glob("*.mp4"))) == 10
    # Repeating either replaces its own films.
    fake_run.train(fake_run.run_config(measured_in_imagination), 4)
    assert sorted(clip.of_training for clip in read_clips(videos)) == [False] * 6 + [True] * 4


def test_the_page_tells_evaluations_from_what_iterations_learned_from(measured_in_imagination):
    page = build_report(measured_in_imagination).read_text()
    assert page.index("<summary>Evaluation after iteration 5</summary>") < page.index("<summary>Iteration 5</summary>")
    assert "Of evaluations between iterations, the same tasks whatever their outcome." in page


def test_films_of_earlier_runs_are_still_told_apart_by_their_phase(measured_in_imagination):
    index = measured_in_imagination / "videos" / "index.json"
    entries = json.loads(index.read_text())
    for entry in entries:
        del entry["source"]
    entries[-1]["phase"] = "before"
    index.write_text(json.dumps(entries))
    assert [clip.of_training for clip in read_clips(index.parent)] == [True] * 9 + [False]
    assert read_clips(index.parent)[-1].when == "before training"


def test_a_damaged_index_is_named(tmp_path):
    (tmp_path / "index.json").write_text('[{"file": 1}]')
    with pytest.raises(DataError, match=r"index\.json: file is 1"):
        read_clips(tmp_path)
