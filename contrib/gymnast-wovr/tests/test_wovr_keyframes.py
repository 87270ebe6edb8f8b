"""Tasks that start shortly before something went wrong: where, with what context, in which share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Dataset
from gymnast_core.plugins.compose import registries
from gymnast_core.testing.dataset import check_dataset
from gymnast_core.types import Episode, Reward, Rollout, one_camera
from gymnast_judging.stored import store
from wovr_parts import WORLD, build, make_rollout

from gymnast_wovr.keyframes import Failure, keyframe_task, wrong_steps

FIRST = {"name": "tabletop", "args": {"count": 3, "image_size": 32}}


class Recorded(Dataset):
    """Episodes with 5, 9 and 13 frames, the last of which failed; frame i of episode e has the level 10·e + i."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        failed: bool = True
        """Whether any failed."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self) -> list[Episode]:
        return [self._episode(number, length) for number, length in enumerate((5, 9, 13))]

    def _episode(self, number: int, length: int) -> Episode:
        levels = torch.arange(10 * number, 10 * number + length, dtype=torch.uint8)
        frames_TVHWC = one_camera(levels[:, None, None, None].expand(-1, 32, 32, 3).clone())
        actions_TA = torch.arange(length - 1, dtype=torch.float32)[:, None].expand(-1, 2).clone()
        success = number != 2 or not self.config.failed
        return Episode(f"episode-{number}", "push", frames_TVHWC, actions_TA, success=success)


@pytest.fixture(scope="module", autouse=True)
def recorded():
    registries().datasets.register("recorded", Recorded)


def keyframe_tasks(**args):
    return build("datasets", "keyframe-tasks", {"first": FIRST, **args})


def run_folder(folder: Path, rollouts: list[Rollout], rewards: list[Reward]) -> str:
    folder.mkdir()
    (folder / "config.yaml").write_text("kind: train\n")
    store(folder, "iteration-000001", rollouts, rewards, ComponentConfig("brightness"), scored_bytes=10**8)
    return str(folder)


def test_the_context_is_the_first_frame_and_the_last_ones_with_the_actions_that_led_to_them():
    rollout = make_rollout(list(range(13)))
    task = keyframe_task(Failure("a", rollout), 12, context=3, lead=2)
    assert task.id == "a@10" and task.view()[:, 0, 0, 0].tolist() == [0, 8, 9, 10]
    assert task.actions_TA is not None
    assert torch.equal(task.actions_TA, rollout.actions_NLA.flatten(0, 1)[7:10])
    # No simulator can be reset to a keyframe.
    assert task.start is None
    early = keyframe_task(Failure("a", rollout), 4, context=3, lead=2)
    assert early.id == "a@3" and early.view()[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_a_rollout_that_began_at_a_keyframe_goes_back_to_the_first_frame_of_all():
    rollout = make_rollout(list(range(50, 59)))
    shown = torch.full((3, 1, 4, 4, 3), 7, dtype=torch.uint8)
    rollout = replace(rollout, task=replace(rollout.task, frames_TVHWC=shown, actions_TA=torch.zeros(2, 2)))
    task = keyframe_task(Failure("a", rollout), 8, context=2, lead=2)
    assert task.view()[:, 0, 0, 0].tolist() == [7, 55, 56]


def test_keyframes_have_the_cameras_and_readings_of_the_rollout():
    frames_TVHWC = torch.arange(9, dtype=torch.uint8)[:, None, None, None, None].repeat(1, 2, 4, 4, 3)
    frames_TVHWC[:, 1] += 100
    seen = make_rollout([0] * 9, frames_TVHWC=frames_TVHWC, cameras=("front", "wrist"), proprio_TP=torch.ones(9, 1))
    # The task knows one camera more than the world that was seen.
    shown = torch.stack([frames_TVHWC[:1, 0] + 50, frames_TVHWC[:1, 1], frames_TVHWC[:1, 0]], dim=1)
    begun = replace(seen.task, frames_TVHWC=shown, cameras=("top", "wrist", "front"), proprio_TP=torch.zeros(1, 1))
    task = keyframe_task(Failure("a", replace(seen, task=begun)), 8, context=2, lead=2)
    assert task.cameras == ("front", "wrist")
    assert task.view("front")[:, 0, 0, 0].tolist() == [0, 5, 6]
    assert task.view("wrist")[:, 0, 0, 0].tolist() == [100, 105, 106]
    assert task.proprio_TP.tolist() == [[0.0], [1.0], [1.0]]


def test_with_a_judge_it_went_wrong_where_the_score_was_last_at_its_highest():
    judge = build("reward_models", "brightness", {"threshold": 0.9})
    levels = [10, 10, 60, 10, 120, 10, 120, 10, 20, 10, 20, 10, 20]
    dark = [10, *[0] * 12]
    failures = [
        Failure("a", make_rollout(levels)),
        Failure("b", make_rollout(dark)),
        Failure("c", make_rollout(levels)),
    ]
    assert wrong_steps(failures, judge, 2) == [6, None, 6]
    assert wrong_steps(failures, judge, 4) == [4, None, 4]
    assert wrong_steps(failures, None, 2) == [12, 12, 12]


def test_what_follows_the_end_of_an_episode_went_wrong_in_nothing():
    levels = [10, 60, 10, 20, 10, 10, 10, 10, 90]
    judge = build("reward_models", "brightness", {"threshold": 0.9})
    over = Failure("a", make_rollout(levels, ended_after=5))
    assert wrong_steps([over], None, 2) == [5]
    assert wrong_steps([over], judge, 1) == [1] and max(judge.asked) == 6


def test_stored_rollouts_that_failed_become_tasks(tmp_path):
    rollouts = [make_rollout(list(range(9)), seed) for seed in range(5)]
    # The world's own verdict goes before the judge's.
    rollouts[2] = replace(rollouts[2], outcome_S=torch.tensor([0.0] * 7 + [1.0]))
    rollouts[3] = replace(rollouts[3], outcome_S=torch.tensor([1.0] * 7 + [0.0]))
    rewards = [Reward(0.0), Reward(1.0), Reward(0.0), Reward(1.0), Reward(None, error="busy")]
    folder = run_folder(tmp_path / "run", rollouts, rewards)
    tasks = keyframe_tasks(runs=[folder], share=1.0, first=None, context=2, lead=3).tasks()
    assert sorted(task.actions_TA[0, 0].item() for task in tasks) == sorted(
        rollouts[i].actions_NLA.flatten(0, 1)[3, 0].item() for i in (0, 3)
    )
    assert all(task.id.startswith("run/iteration-000001-group-000000/") and task.id.endswith("@5") for task in tasks)
    only = keyframe_tasks(runs=[folder], share=1.0, count=1).tasks()
    assert len(only) == 1


def test_a_stored_score_says_nothing_of_failure(tmp_path):
    rollouts = [make_rollout(list(range(9)), seed) for seed in range(2)]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("kind: train\n")
    judge, rewards = ComponentConfig("brightness"), [Reward(-3.0), Reward(0.1)]
    store(folder, "iteration-000001", rollouts, rewards, judge, reward_kind="score", scored_bytes=10**8)
    with pytest.raises(DataError, match="no failed rollout"):
        keyframe_tasks(runs=[str(folder)]).tasks()


def test_first_frame_tasks_show_what_the_rollouts_were_seen_in(tmp_path):
    rollouts = [make_rollout(list(range(9)), seed, cameras=("nowhere",)) for seed in range(2)]
    folder = run_folder(tmp_path / "run", rollouts, [Reward(0.0)] * 2)
    with pytest.raises(DataError, match="nowhere"):
        list(keyframe_tasks(runs=[folder]).tasks())


def test_the_share_holds_and_every_task_appears(tmp_path):
    rollouts = [make_rollout(list(range(9)), seed) for seed in range(4)]
    folder = run_folder(tmp_path / "run", rollouts, [Reward(0.0)] * 4)
    for share, total in ((0.5, 8), (0.25, 16), (0.8, 15)):
        tasks = list(keyframe_tasks(runs=[folder], share=share).tasks())
        starts = [len(task.frames_TVHWC) for task in tasks]
        assert set(starts) == {1, 5} and len(tasks) == total
        assert starts.count(5) == round(share * total)
        assert len({task.id for task in tasks}) == total
        assert len({task.id.partition("#")[0] for task in tasks}) == 7
        # Spread evenly, so that a part of them has that share, too.
        assert abs(starts[: total // 2].count(5) - share * (total // 2)) <= 1


def test_recorded_failures_are_read_after_the_runs():
    tasks = keyframe_tasks(episodes={"name": "recorded"}, share=1.0, context=3, lead=2).tasks()
    assert [task.id for task in tasks] == ["episode-2@10"]
    assert tasks[0].view()[:, 0, 0, 0].tolist() == [20, 28, 29, 30]
    assert tasks[0].actions_TA[:, 0].tolist() == [7, 8, 9]


def test_both_kinds_fit_into_one_batch_of_a_world_model_with_a_still_action():
    world = build("world_models", "worldgym", WORLD)
    args = {"episodes": {"name": "recorded"}, "context": 3, "share": 0.5}
    mixed = list(keyframe_tasks(**args).tasks())
    with pytest.raises(DataError, match="equally many frames"):
        world.reset(mixed[:2])
    padded = list(keyframe_tasks(**args, still_action=[0.0, 0.0]).tasks())
    generator = torch.Generator().manual_seed(0)
    state = world.reset(padded[:2], generator=generator)
    step = world.step(state, torch.zeros(2, 2, 2))
    assert step.frames_BLVHWC.shape == (2, 2, 1, 32, 32, 3)
    first = next(task for task in padded if task.start is not None)
    assert (first.frames_TVHWC == first.frames_TVHWC[:1]).all() and first.actions_TA.tolist() == [[0.0, 0.0]] * 3


def test_it_keeps_the_contract_of_datasets():
    assert check_dataset(keyframe_tasks(episodes={"name": "recorded"}))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "set tasks.args.runs"),
        ({"runs": ["x"], "share": 0.0}, "share is 0;"),
        ({"runs": ["x"], "first": None}, "set tasks.args.first, or share=1"),
        ({"runs": ["x"], "context": 0}, "context is 0"),
    ],
)
def test_unusable_options_are_refused(args, message):
    with pytest.raises(ConfigError, match=message):
        keyframe_tasks(**args)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="is not a run folder"):
        keyframe_tasks(runs=[str(tmp_path)]).tasks()
    folder = run_folder(tmp_path / "run", [make_rollout([9] * 9)], [Reward(1.0)])
    with pytest.raises(DataError, match=r"no failed rollout of at least 4 actions in .*run, recorded"):
        keyframe_tasks(runs=[folder], episodes={"name": "recorded", "args": {"failed": False}}).tasks()
    dark = run_folder(tmp_path / "dark", [make_rollout([0] * 9)], [Reward(0.0)])
    with pytest.raises(DataError, match="could not judge any of 1 failed"):
        keyframe_tasks(runs=[dark], judge={"name": "brightness"}).tasks()
