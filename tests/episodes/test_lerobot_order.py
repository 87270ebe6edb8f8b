"""Which row is which frame, and what an episode is about: by indices, times and the table of tasks, or not at all."""

from __future__ import annotations

import json

import av
import hand_made
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clips import encode, episodes_of, nearest, pictures
from hand_made import LENGTHS, TASKS, TOP, WRIST

from gymnast_core.errors import DataError
from gymnast_core.plugins.compose import registries

MAKERS = {"v2.1": hand_made.v21, "v3.0": hand_made.v3, "images": hand_made.v3_images}


@pytest.fixture(params=MAKERS)
def made(request, tmp_path):
    return MAKERS[request.param](tmp_path / "set")


@pytest.fixture(params=["v2.1", "v3.0"])
def on_video(request, tmp_path):
    return MAKERS[request.param](tmp_path / "set")


def rewrite(made, change):
    for path in sorted(made.glob("data/*/*.parquet")):
        pq.write_table(change(pq.ParquetFile(path).read()), path, row_group_size=4)


def put(table, name, values):
    column = values if isinstance(values, pa.Array) else pa.array(values)
    return table.set_column(table.schema.get_field_index(name), name, column)


def assert_right(made, episodes=None):
    found = episodes_of("lerobot", path=str(made)) if episodes is None else episodes
    assert [len(episode.view()) for episode in found] == list(LENGTHS)
    for i, episode in enumerate(found):
        np.testing.assert_array_equal(episode.actions_TA.numpy(), hand_made.actions(i)[:-1])
        np.testing.assert_array_equal(episode.proprio_TP.numpy(), hand_made.readings(i))
        assert nearest(episode.view(), hand_made.frames(i)) == list(range(LENGTHS[i]))
    assert [episode.instruction for episode in found] == [TASKS[0], TASKS[1], TASKS[0]]


def shuffled(table, seed=0):
    return table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))


def test_rows_in_any_order(made):
    rewrite(made, shuffled)
    assert_right(made)
    crop = episodes_of("lerobot", path=str(made), window=3)[7]  # the second episode from its third frame on
    np.testing.assert_array_equal(crop.actions_TA.numpy(), hand_made.actions(1)[2:4])
    assert nearest(crop.view(), hand_made.frames(1)) == [2, 3, 4]


def test_rows_without_frame_index_are_in_the_order_of_their_times(made):
    rewrite(made, lambda table: shuffled(table).drop_columns(["frame_index"]))
    assert_right(made)
    rewrite(made, lambda table: put(table, "timestamp", [0.0] * table.num_rows))
    with pytest.raises(DataError, match=r"\.parquet: two rows of episode 0 have one timestamp"):
        episodes_of("lerobot", path=str(made))[0]
    rewrite(made, lambda table: table.drop_columns(["timestamp"]))
    with pytest.raises(DataError, match=r"\.parquet has neither frame_index nor timestamp"):
        episodes_of("lerobot", path=str(made))[0]


@pytest.mark.parametrize(("frame", "message"), [(3, "2 is followed by 4"), (None, "3 is followed by 3")])
def test_a_frame_that_is_missing_or_there_twice(made, frame, message):
    """Its neighbours are no neighbours in time: the action between them would be wrong."""

    def change(table):
        index = np.array(table["frame_index"])
        index = np.where(index == 4, 3, index) if frame is None else index + (index >= frame)
        return put(table, "frame_index", index)

    rewrite(made, change)
    with pytest.raises(DataError, match=rf"frames of episode 0 are not whole: frame_index {message}"):
        episodes_of("lerobot", path=str(made))[0]


def test_v3_rows_that_do_not_say_their_episode(tmp_path):
    made = hand_made.v3(tmp_path / "set")
    rewrite(made, lambda table: table.drop_columns(["episode_index"]))
    with pytest.raises(DataError, match="lacks the column episode_index"):
        episodes_of("lerobot", path=str(made))[0]


# Times


def remuxed(path, **options):
    """The same packets in a new container, whose first frame is then shown later."""
    other = path.with_suffix(".tmp")
    with av.open(str(path)) as old, av.open(str(other), "w", format="mp4", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    other.rename(path)


def test_videos_that_start_late(on_video):
    for path in sorted(on_video.glob("videos/**/*.mp4")):
        remuxed(path, use_editlist="0")
        with av.open(str(path)) as container:
            assert next(container.decode(video=0)).time == pytest.approx(0.2)
    assert_right(on_video)


@pytest.mark.parametrize("late", [0.02, 0.1, 0.13, 3.7, -0.1])
def test_clocks_that_start_late(on_video, late):
    rewrite(on_video, lambda table: put(table, "timestamp", np.array(table["timestamp"]) + late))
    assert_right(on_video)


def test_a_late_video_of_which_a_part_is_described_is_refused(tmp_path):
    """Only one of its two episodes is left in the metadata: nothing says from where times count."""
    made = hand_made.v3(tmp_path / "set")
    remuxed(made / f"videos/{TOP}/chunk-000/file-000.mp4", use_editlist="0")
    path = made / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.ParquetFile(path).read().slice(1), path)
    about = json.loads((made / "meta/info.json").read_text()) | {"total_episodes": 2}
    (made / "meta/info.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"first frame of .*file-000\.mp4 is shown at 0\.200 s"):
        episodes_of("lerobot", path=str(made))[0]


def cut_head(made, frames):
    """The first rows of every episode are dropped, as by hand; the videos keep their frames."""

    def change(table):
        return table.filter(pa.array(np.array(table["frame_index"]) >= frames))

    rewrite(made, change)


def test_rows_of_a_part_of_the_video_show_that_part(on_video):
    cut_head(on_video, 2)
    lengths = [n - 2 for n in LENGTHS]
    if (path := on_video / "meta/episodes.jsonl").exists():
        rows = [json.loads(line) | {"length": n} for line, n in zip(path.open(), lengths, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path = on_video / "meta/episodes/chunk-000/file-000.parquet"
        pq.write_table(put(pq.ParquetFile(path).read(), "length", lengths), path)
    for i, episode in enumerate(episodes_of("lerobot", path=str(on_video))):
        assert nearest(episode.view(), hand_made.frames(i)) == list(range(2, LENGTHS[i]))
        np.testing.assert_array_equal(episode.actions_TA.numpy(), hand_made.actions(i)[2:-1])
    # The same rows with a clock that counts from the first of them: frame 0 or frame 2?
    rewrite(on_video, lambda table: put(table, "timestamp", np.array(table["timestamp"]) - 0.17))
    with pytest.raises(DataError, match=r"\.mp4 does not show the episode"):
        episodes_of("lerobot", path=str(on_video))[0]


@pytest.mark.parametrize(
    "times",
    [
        lambda seconds: seconds * 1000,
        lambda seconds: seconds * 3,
        lambda seconds: seconds + 0.1 * (seconds > 0.25),
        lambda seconds: seconds * 0,
        lambda seconds: np.where(seconds > 0.25, np.nan, seconds),
    ],
    ids=["milliseconds", "another rate", "a gap", "all zero", "NaN"],
)
def test_times_that_contradict_the_video(on_video, times):
    rewrite(on_video, lambda table: put(table, "timestamp", times(np.array(table["timestamp"], np.float64))))
    with pytest.raises(DataError, match=r"\.mp4|\.parquet"):
        episodes_of("lerobot", path=str(on_video))[0]


def test_a_frame_more_at_the_end_of_a_video_is_no_matter(tmp_path):
    made = hand_made.v21(tmp_path / "set")
    path = made / f"videos/chunk-000/{TOP}/episode_000000.mp4"
    encode(path, pictures(LENGTHS[0] + 1), fps=10, g="4", bf="2")
    assert_right(made)


# Instructions


def instructions(made, **args):
    return [episode.instruction for episode in episodes_of("lerobot", path=str(made), **args)]


def lines(path, change):
    rows = [json.loads(line) for line in path.open()]
    path.write_text("".join(json.dumps(row | change(row)) + "\n" for row in rows))


def table(made, *tasks):
    rows = [{"task_index": index, "task": task} for index, task in tasks]
    (made / "meta/tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("named", ["pick up the cube", ["pick up the cube"], ["pick up the cube", None]])
def test_one_task_as_text_or_list_without_a_table(tmp_path, named):
    made = hand_made.v21(tmp_path / "set")
    (made / "meta/tasks.jsonl").unlink()
    lines(made / "meta/episodes.jsonl", lambda row: {"tasks": named})
    assert instructions(made) == ["pick up the cube"] * 3


@pytest.mark.parametrize("named", ["x", ["x"], [], None, 0, [0]])
def test_the_table_says_what_a_row_is_about(tmp_path, caplog, named):
    made = hand_made.v21(tmp_path / "set")
    lines(made / "meta/episodes.jsonl", lambda row: {"tasks": named})
    assert instructions(made) == [TASKS[0], TASKS[1], TASKS[0]]
    contradicts = named not in ([], None)
    assert caplog.text.count("The table is right here") == contradicts


@pytest.mark.parametrize(("version", "target"), [("v2.1", "parquet"), ("v3.0", "jsonl")])
def test_the_table_of_the_other_version(tmp_path, version, target):
    made = MAKERS[version](tmp_path / "set")
    (made / ("meta/tasks.jsonl" if target == "parquet" else "meta/tasks.parquet")).unlink()
    if target == "parquet":
        tasks = {"task_index": pa.array([1, 0]), "__index_level_0__": pa.array(TASKS[::-1]).dictionary_encode()}
        pq.write_table(pa.table(tasks), made / "meta/tasks.parquet")
    else:
        (made / "meta/tasks.jsonl").write_text(
            "\r\n".join(json.dumps({"task_index": i, "task": task}) for i, task in enumerate(TASKS))
        )
    assert instructions(made) == [TASKS[0], TASKS[1], TASKS[0]]


@pytest.mark.parametrize("task", ["put\u2028it\u0085down", "sag \u201eja\u201c \U0001f600", "a\x0bb\x1cc"])
def test_separators_and_any_script_in_a_line_of_json(tmp_path, task):
    made = hand_made.v21(tmp_path / "set")
    table = [{"task_index": i, "task": task} for i in range(2)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
    (made / "meta/tasks.jsonl").write_text(text, encoding="utf-8-sig")
    assert instructions(made) == [task] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: table(m, (0, "x")), r"task 1, which .*tasks\.jsonl"),
        (lambda m: table(m, (0, 5)), r"tasks\.jsonl.*task is 5"),
        (lambda m: table(m, (0, "\ud800")), r"tasks\.jsonl.*written"),
        (lambda m: table(m, (0, "a"), (0, "a"), (0, "b")), "twice"),
        (lambda m: (m / "meta/tasks.jsonl").unlink(), "about several tasks"),
        (lambda m: lines(m / "meta/episodes.jsonl", lambda row: {"tasks": {"0": "x"}}), r"episodes\.jsonl.*tasks is"),
        (lambda m: lines(m / "meta/episodes.jsonl", lambda row: {"tasks": [True]}), r"episodes\.jsonl.*tasks is"),
        (lambda m: lines(m / "meta/episodes.jsonl", lambda row: {"episode_index": 0}), "lists episode 0 twice"),
        (lambda m: lines(m / "meta/episodes.jsonl", lambda row: {"length": 1.5}), r"length is 1\.5"),
        (lambda m: (m / "meta/episodes.jsonl").write_text('{"episode_index": 0, "length": 7}'), "counts 3 episodes"),
    ],
)  # fmt: skip
def test_instructions_and_episodes_that_nobody_can_tell(tmp_path, change, message):
    made = hand_made.v21(tmp_path / "set")
    change(made)
    with pytest.raises(DataError, match=message):
        instructions(made)


def test_fewer_episodes_than_counted_are_read_when_asked(tmp_path, caplog):
    made = hand_made.v21(tmp_path / "set")
    path = made / "meta/episodes.jsonl"
    path.write_text("\n".join(path.read_text().split("\n")[:2]))
    assert len(instructions(made, skip_bad=True)) == 2
    assert "counts 3 episodes, but meta lists 2" in caplog.text


# Types


LISTS = {
    "large": pa.large_list(pa.float32()),
    "list": pa.list_(pa.float64()),
    "fixed": pa.list_(pa.float16(), 3),
    "view": pa.list_view(pa.float32()),
}


@pytest.mark.parametrize("kind", LISTS)
def test_actions_in_every_kind_of_list(made, kind):
    rewrite(made, lambda table: put(table, "action", pa.array(table["action"].to_pylist(), LISTS[kind])))
    rounding = 1e-2 if kind == "fixed" else 0
    for i, episode in enumerate(episodes_of("lerobot", path=str(made))):
        np.testing.assert_allclose(episode.actions_TA.numpy(), hand_made.actions(i)[:-1], atol=rounding)


def test_numbers_in_lists_of_one_and_other_integers(made):
    def change(table):
        for name in ("timestamp", "task_index"):
            table = put(table, name, pa.array([[value] for value in table[name].to_pylist()]))
        return put(table, "frame_index", pa.array(table["frame_index"].to_pylist(), pa.int16()))

    rewrite(made, change)
    assert_right(made)


@pytest.mark.parametrize(
    ("name", "value"),
    [("action", [[1.0, 2.0, 3.0], None]), ("action", [["a"], ["b"]]), ("frame_index", [0, None]),
     ("timestamp", ["0", "1"]), ("episode_index", [0.5, 1.0]), ("task_index", [[0], [0, 1]])],
)  # fmt: skip
def test_columns_that_are_no_numbers(made, name, value):
    def change(table):
        return put(table, name, pa.array((value * table.num_rows)[: table.num_rows]))

    rewrite(made, change)
    with pytest.raises(DataError, match=rf"\.parquet.*{name}|{name}.*\.parquet"):
        episodes_of("lerobot", path=str(made))[0]


def test_files_that_macos_and_editors_leave(made):
    for path in [*made.rglob("*.parquet"), *made.rglob("*.json"), *made.rglob("*.mp4")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7" + bytes(60))
    info = made / "meta/info.json"
    info.write_text(info.read_text(), encoding="utf-8-sig")
    assert_right(made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_path": "../{episode_index}.parquet"}, "data_path .* leads to no file of the dataset"),
        ({"data_path": "{episode_index:999999999d}{episode_chunk}"}, "data_path .*cannot be filled in"),
        ({"data_path": "{episode_index.real}"}, "data_path .*cannot be filled in"),
        ({"data_path": "/etc/passwd"}, "leads to no file of the dataset"),
        ({"data_path": "a\0b"}, "leads to no file of the dataset"),
        ({"video_path": None}, "video_path '' leads to no file"),
        ({"chunks_size": 0}, r"info\.json: chunks_size is 0"),
        ({"fps": 0}, r"info\.json: fps is 0"),
        ({"fps": "10"}, r'info\.json: fps is "10"'),
        ({"features": []}, r"info\.json: features is \[\]"),
        ({"features": {"action": None}}, r"info\.json: features: action"),
        ({"total_episodes": True}, "total_episodes"),
    ],
)
def test_metadata_of_the_wrong_kind(tmp_path, change, message):
    path = hand_made.v21(tmp_path / "set") / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        episodes_of("lerobot", path=str(tmp_path / "set"))[0]


@pytest.mark.parametrize("about", [{"shape": None}, {"names": None}, {"shape": [3], "names": {"motors": ["a"] * 3}}])
def test_features_that_say_less(made, about):
    path = made / "meta/info.json"
    content = json.loads(path.read_text())
    content["features"]["action"] = {"dtype": "float32", **about}
    path.write_text(json.dumps(content))
    assert_right(made)


# What newer and older versions write


def test_v3_metadata_that_says_less(tmp_path):
    """Where an episode ends in its video, and its tasks, follow from its length and its rows."""
    made = hand_made.v3(tmp_path / "set")
    path = made / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["tasks", f"videos/{TOP}/to_timestamp"]), path)
    assert_right(made)


def with_depth(made, key):
    path = made / "meta/info.json"
    about = json.loads(path.read_text())
    about["features"][WRIST] = about["features"][WRIST] | {"info": {key: True}}
    path.write_text(json.dumps(about))
    return str(made)


@pytest.mark.parametrize("key", ["video.is_depth_map", "is_depth_map"])
def test_videos_of_depth_are_no_cameras(tmp_path, key):
    made = with_depth(hand_made.v21(tmp_path / "set", (TOP, WRIST)), key)
    episodes = episodes_of("lerobot", path=made)
    assert episodes[0].cameras == ("top",) and episodes.recording.left_out == (WRIST,)
    with pytest.raises(DataError, match=f"{WRIST} shows depth.*Cameras in colour: {TOP}"):
        episodes_of("lerobot", path=made, camera="wrist")


def test_cameras_of_one_short_name_keep_their_whole_names(tmp_path):
    made = hand_made.v21(tmp_path / "set", (TOP, WRIST))
    text = (made / "meta/info.json").read_text()
    (made / "meta/info.json").write_text(text.replace(WRIST, "top"))
    (made / f"videos/chunk-000/{WRIST}").rename(made / "videos/chunk-000/top")
    episode = episodes_of("lerobot", path=str(made))[0]
    assert episode.cameras == (TOP, "top")
    assert nearest(episode.view("top"), hand_made.frames(0, WRIST)) == list(range(LENGTHS[0]))


@pytest.mark.parametrize("dataset", ["lerobot", "rlds", "worldgym-episodes", "trials"])
@pytest.mark.parametrize("path", ["nowhere", "~nobody-of-that-name/x", "a\0b", "x" * 5000])
def test_folders_that_cannot_be(dataset, path):
    with pytest.raises(DataError, match=r"No folder .*path=") as caught:
        registries().datasets.build(dataset, {"path": path}).episodes()
    assert "\n" not in str(caught.value)
