"""LeRobotDatasets of v2.1 and v3.0, laid out by hand from the formats' documentation."""

from __future__ import annotations

import json
import pickle

import hand_made
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from clips import decode_all, encode, episodes_of, nearest, pictures, same_episode
from hand_made import LENGTHS, TASKS, TOP, WRIST

from gymnast_core.errors import ConfigError, DataError

MAKERS = {"v2.1": hand_made.v21, "v3.0": hand_made.v3}


@pytest.fixture(params=MAKERS)
def made(request, tmp_path):
    return MAKERS[request.param](tmp_path / "set")


def test_whole_episodes(made):
    episodes = episodes_of("lerobot", path=str(made))
    assert [episode.id for episode in episodes] == ["set/000000", "set/000001", "set/000002"]
    for i, episode in enumerate(episodes):
        np.testing.assert_array_equal(episode.actions_TA.numpy(), hand_made.actions(i)[:-1])
        assert episode.view().shape == (LENGTHS[i], 32, 48, 3)
        assert nearest(episode.view(), hand_made.frames(i)) == list(range(LENGTHS[i]))
        assert episode.cameras == ("top",) and episode.fps == hand_made.FPS
        np.testing.assert_array_equal(episode.proprio_TP.numpy(), hand_made.readings(i))
    # The second episode's metadata names two tasks; its rows say which one it begins with.
    assert [episode.instruction for episode in episodes] == [TASKS[0], TASKS[1], TASKS[0]]


def test_frames_of_one_camera_are_those_of_its_video(tmp_path):
    made = hand_made.v3(tmp_path / "set", (TOP, WRIST))
    joined = decode_all(made / f"videos/{WRIST}/chunk-000/file-000.mp4")
    episodes = episodes_of("lerobot", path=str(made), camera=WRIST)
    assert np.array_equal(episodes[0].view().numpy(), joined[:7])
    assert np.array_equal(episodes[1].view().numpy(), joined[7:])


def test_crops(made):
    whole, crops = episodes_of("lerobot", path=str(made)), episodes_of("lerobot", path=str(made), window=4)
    assert len(crops) == sum(n - 3 for n in LENGTHS)
    for crop in crops:
        _, number, start = crop.id.split("/")
        full, at = whole[int(number)], int(start)
        assert torch.equal(crop.view(), full.view()[at : at + 4])
        assert torch.equal(crop.actions_TA, full.actions_TA[at : at + 3])
        assert torch.equal(crop.proprio_TP, full.proprio_TP[at : at + 4])
    assert crops[4 + 5].instruction == TASKS[1]
    assert crops[4 + 6].instruction == TASKS[0]
    same_episode(pickle.loads(pickle.dumps(crops))[5], crops[5])
    assert crops[0].view().shape == (4, 32, 48, 3)
    small = episodes_of("lerobot", path=str(made), window=4, image_size=[16, 24])
    assert small[0].view().shape == (4, 16, 24, 3)


def test_images_inside_the_parquet_file(tmp_path):
    episodes = episodes_of("lerobot", path=str(hand_made.v3_images(tmp_path / "set")))
    for i, episode in enumerate(episodes):
        np.testing.assert_array_equal(episode.view().numpy(), hand_made.frames(i))
    crops = episodes_of("lerobot", path=str(tmp_path / "set"), window=3)
    np.testing.assert_array_equal(crops[6].view().numpy(), hand_made.frames(1)[1:4])


def test_a_named_column_of_tasks_and_other_number_types(tmp_path):
    made = hand_made.v3(tmp_path / "set")
    tasks = {"task": pa.array(TASKS), "task_index": pa.array([0, 1], pa.int64())}
    pq.write_table(pa.table(tasks), made / "meta/tasks.parquet")
    path = made / "data/chunk-000/file-000.parquet"
    table = pq.ParquetFile(path).read()
    wide = pa.array(table["action"].to_pylist(), pa.list_(pa.float64()))
    pq.write_table(table.set_column(table.column_names.index("action"), "action", wide), path)
    episodes = episodes_of("lerobot", path=str(made))
    assert episodes[1].instruction == TASKS[1]
    assert episodes[1].actions_TA.dtype == torch.float32
    np.testing.assert_array_equal(episodes[1].actions_TA.numpy(), hand_made.actions(1)[:-1])


def test_another_feature_as_actions(made):
    episode = episodes_of("lerobot", path=str(made), action="observation.state")[0]
    np.testing.assert_array_equal(episode.actions_TA.numpy(), hand_made.readings(0)[:-1])
    np.testing.assert_array_equal(episode.proprio_TP.numpy(), hand_made.readings(0))
    with pytest.raises(DataError, match=r"No action feature 'actoin'.*Did you mean 'action'"):
        episodes_of("lerobot", path=str(made), action="actoin")


def test_episodes_without_a_task(tmp_path):
    made = hand_made.v21(tmp_path / "set")
    (made / "meta/tasks.jsonl").unlink()
    lines = [{"episode_index": i, "tasks": [], "length": n} for i, n in enumerate(LENGTHS)]
    (made / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=r"has no instruction.*instruction="):
        episodes_of("lerobot", path=str(made))[0]
    assert episodes_of("lerobot", path=str(made), instruction="wipe")[0].instruction == "wipe"


def _edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _set_actions(made, values):
    for path in sorted(made.glob("data/*/*.parquet")):
        table = pq.ParquetFile(path).read()
        column = pa.array([list(values)] * table.num_rows, pa.list_(pa.float32()))
        pq.write_table(table.set_column(0, "action", column), path)


def _remove(made, pattern):
    for path in made.glob(pattern):
        path.unlink()


def _half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
    "unknown version": (
        lambda m: _edit(m / "meta/info.json", lambda c: c.update(codebase_version="v4.1")),
        r"'v4\.1' cannot be read; known: v2\.0, v2\.1, v3\.0",
    ),
    "no info": (lambda m: (m / "meta/info.json").unlink(), "is no LeRobot dataset.*path=DIR"),
    "info incomplete": (lambda m: _edit(m / "meta/info.json", lambda c: c.pop("fps")), r"info\.json: fps is missing"),
    "info no JSON": (lambda m: (m / "meta/info.json").write_text("{"), r"info\.json is not valid JSON"),
    "wrong template": (
        lambda m: _edit(m / "meta/info.json", lambda c: c.update(data_path="data/{nothing}.parquet")),
        r"info\.json: the path template data_path .*cannot be filled in",
    ),
    "no data file": (lambda m: _remove(m, "data/*/*.parquet"), r"\.parquet is missing"),
    "no video": (lambda m: _remove(m, "videos/**/*.mp4"), r"No video .*\.mp4"),
    "damaged data": (lambda m: [_half(p) for p in m.glob("data/*/*.parquet")], r"Cannot read the file .*\.parquet"),
    "damaged video": (lambda m: [_half(p) for p in m.glob("videos/**/*.mp4")], r"Cannot read the video .*\.mp4"),
    "NaN": (lambda m: _set_actions(m, [0.0, float("nan"), 0.0]), r"\.parquet: actions of episode 0 contain NaN"),
    "wrong width": (lambda m: _set_actions(m, [0.0, 1.0]), r"actions are \[2\] wide, meta/info\.json says \[3\]"),
    "other length": (
        lambda m: [pq.write_table(pq.ParquetFile(p).read().slice(1), p) for p in m.glob("data/*/*.parquet")],
        "has 6 rows of episode 0, but the metadata says 7 frames",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_dataset_is_one_error(made, kind):
    damage, message = BROKEN[kind]
    damage(made)
    with pytest.raises(DataError, match=message) as caught:
        episodes_of("lerobot", path=str(made))[0]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_all_cameras_or_the_ones_that_are_named(tmp_path, make):
    made = make(tmp_path / "set", (TOP, WRIST))

    def shown(**args):
        """Names, and each camera's frames of the second episode."""
        episode = episodes_of("lerobot", path=str(made), **args)[1]
        assert episode.frames_TVHWC.shape == (LENGTHS[1], len(episode.cameras), 32, 48, 3)
        return {name: episode.view(name) for name in episode.cameras}

    both = shown()
    assert list(both) == ["top", "wrist"]
    for name, camera in (("top", TOP), ("wrist", WRIST)):
        assert nearest(both[name], hand_made.frames(1, camera)) == list(range(LENGTHS[1]))
        assert nearest(both[name], np.concatenate([hand_made.frames(1, c) for c in (TOP, WRIST)]))[0] in (0, LENGTHS[1])
        for wanted in (name, camera):
            (alone,) = shown(camera=wanted).items()
            assert alone[0] == name and torch.equal(alone[1], both[name])
    for wanted in (["wrist", "top"], [WRIST, "top"]):
        turned = shown(cameras=wanted)
        assert list(turned) == ["wrist", "top"]
        assert all(torch.equal(turned[name], both[name]) for name in both)


def test_cameras_that_are_not_there_or_named_twice(tmp_path):
    made = str(hand_made.v21(tmp_path / "set", (TOP, WRIST)))
    with pytest.raises(DataError, match=f"No camera 'observation.images.tob'. Did you mean '{TOP}'"):
        episodes_of("lerobot", path=made, camera="observation.images.tob")
    with pytest.raises(DataError, match="twice: top, observation"):
        episodes_of("lerobot", path=made, cameras=["top", TOP])
    with pytest.raises(ConfigError, match="not both"):
        episodes_of("lerobot", path=made, camera="top", cameras=["wrist"])


def test_cameras_of_different_sizes_have_to_be_resized(tmp_path):
    made = hand_made.v21(tmp_path / "set", (TOP, WRIST))
    encode(made / f"videos/chunk-000/{WRIST}/episode_000000.mp4", pictures(LENGTHS[0], height=16, width=24), fps=10)
    with pytest.raises(DataError, match=r"differ in size \(top 32x48, wrist 16x24\).*image_size"):
        episodes_of("lerobot", path=str(made))[0]
    small = episodes_of("lerobot", path=str(made), image_size=[16, 24])[0]
    assert small.frames_TVHWC.shape == (LENGTHS[0], 2, 16, 24, 3)


def test_readings_are_left_out_or_come_from_another_feature(made):
    def readings(**args):
        return episodes_of("lerobot", path=str(made), **args)[0].proprio_TP

    assert readings(proprio=None) is None
    np.testing.assert_array_equal(readings(proprio="action").numpy(), hand_made.actions(0))
    with pytest.raises(DataError, match=r"No feature of readings 'observation.stat'.*Did you mean"):
        readings(proprio="observation.stat")
    _edit(made / "meta/info.json", lambda content: content["features"].pop("observation.state"))
    assert readings() is None


def test_readings_that_are_no_numbers(made):
    for path in sorted(made.glob("data/*/*.parquet")):
        table = pq.ParquetFile(path).read()
        column = pa.array([[0.0, float("nan")]] * table.num_rows, pa.list_(pa.float32()))
        place = table.column_names.index("observation.state")
        pq.write_table(table.set_column(place, "observation.state", column), path)
    with pytest.raises(DataError, match=r"observation\.state of episode 0 contain NaN"):
        episodes_of("lerobot", path=str(made))[0]


def test_a_video_that_does_not_show_the_episode(tmp_path):
    made = hand_made.v3(tmp_path / "set")
    path = made / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.ParquetFile(path).read().to_pylist()
    rows[1][f"videos/{TOP}/from_timestamp"] = 1.5
    pq.write_table(pa.Table.from_pylist(rows), path)
    episodes = episodes_of("lerobot", path=str(made))
    assert len(episodes[0].view()) == 7
    with pytest.raises(DataError, match=r"file-000\.mp4 does not show the episode from 1\.500 s on"):
        episodes[1]


def test_bad_episodes_are_skipped_when_asked(tmp_path, caplog):
    made = hand_made.v21(tmp_path / "set")
    _half(made / f"videos/chunk-000/{TOP}/episode_000001.mp4")
    kept = episodes_of("lerobot", path=str(made), skip_bad=True)
    assert [episode.id for episode in kept] == ["set/000000", "set/000002"]
    assert "episode_000001.mp4" in caplog.text
    assert "1 bad episodes skipped, 2 are good" in caplog.text


def test_an_episode_without_frames_is_left_out(tmp_path, caplog):
    made = hand_made.v21(tmp_path / "set")
    lines = [{"episode_index": i, "tasks": ["x"], "length": n if i != 1 else 0} for i, n in enumerate(LENGTHS)]
    (made / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for skip_bad in (False, True):
        kept = episodes_of("lerobot", path=str(made), skip_bad=skip_bad)
        assert [episode.id for episode in kept] == ["set/000000", "set/000002"]
    assert "1 episodes are shorter than 2 frames" in caplog.text


def test_a_dataset_of_episodes_has_no_tasks(made):
    from gymnast_core.plugins.compose import registries

    with pytest.raises(DataError, match="holds no tasks"):
        registries().datasets.build("lerobot", {"path": str(made)}).tasks()
    with pytest.raises(ConfigError, match="path"):
        registries().datasets.build("lerobot", {})
