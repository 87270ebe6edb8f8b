from __future__ import annotations

import shutil
from pathlib import Path

import golden
import pytest
import torch

from gymnast_core.errors import DataError
from gymnast_episodes.images import resize
from gymnast_episodes.trials import Trials

TREE = golden.ROOT / "trials_tree"
EXPECTED = {
    "lift--eggplant_from-sink/a": "lift eggplant",
    "lift--eggplant_from-sink/b": "lift eggplant",
    "lift--eggplant_from-sink/c": "lift eggplant",
    "put_carrot_on_plate/ep_0": "place the carrot on plate",
    "put_carrot_on_plate/ep_1": "place the carrot on plate",
    "root_level": "at root",
    "suite_x/open_drawer/v2/t.0": "Open the Drawer",
}


def trials(path: Path) -> Trials:
    return Trials(Trials.Config(path=str(path)))


def test_finds_the_trials_that_the_original_finds() -> None:
    tasks = trials(TREE).tasks()
    assert {task.id: task.instruction for task in tasks} == EXPECTED
    assert {task.id for task in tasks if task.partial_credit_criteria == "the carrot is grasped"} == {
        "put_carrot_on_plate/ep_0",
        "put_carrot_on_plate/ep_1",
    }
    assert all(task.frames_TVHWC.dtype == torch.uint8 and task.frames_TVHWC.ndim == 5 for task in tasks)


def test_groups_and_titles_are_those_of_the_original() -> None:
    recorded = golden.cases("discover_trials")["expected_sorted_by_png"]
    found = {f"{trial.id}.png": trial for trial in trials(TREE).trials}
    assert sorted(found) == [case["trial_png"] for case in recorded]
    for case in recorded:
        trial = found[case["trial_png"]]
        assert (trial.folder, trial.title) == (case["task_key"], case["task_display"])
        assert trial.instruction == case["instruction"]
        assert trial.partial_credit_criteria == (case["partial_criteria"] or None)


def test_resizes_on_request() -> None:
    tasks = Trials(Trials.Config(path=str(TREE), image_size=[16, 24])).tasks()
    assert tasks[0].frames_TVHWC.shape == (1, 1, 16, 24, 3)
    assert len(tasks[1:3]) == 2
    own = trials(TREE).tasks()[0].view()
    assert torch.equal(tasks[0].view(), resize(own, (16, 24)))


def test_reads_images_only_when_asked(tmp_path: Path) -> None:
    shutil.copytree(TREE / "put_carrot_on_plate", tmp_path / "tree")
    (tmp_path / "tree" / "ep_1.png").write_bytes((TREE / "root_level.png").read_bytes()[:100])
    tasks = trials(tmp_path / "tree").tasks()
    assert tasks[0].id == "ep_0"
    with pytest.raises(DataError, match=r"ep_1\.png"):
        tasks[1]
    (tmp_path / "tree" / "ep_0.png").unlink()
    with pytest.raises(DataError, match=r"ep_0\.png"):
        tasks[0]


def test_an_empty_or_missing_folder_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found 0 \.png"):
        trials(tmp_path)
    with pytest.raises(DataError, match="nowhere"):
        trials(tmp_path / "nowhere")
