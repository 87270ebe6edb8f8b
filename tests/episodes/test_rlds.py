"""RLDS datasets: a real record as TensorFlow Datasets wrote it, and made ones with what others do differently."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import rlds_made as made
import torch
from clips import episodes_of, psnr, same_episode

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.plugins.compose import registries
from gymnast_core.testing import check_dataset
from gymnast_episodes.conversion import Conversion, convert
from gymnast_episodes.tfrecord import masked_crc, places, record
from gymnast_episodes.writers import WriterOptions

REAL = Path(__file__).parents[1] / "golden/episodes/rlds/bridge_dataset"
LENGTHS = made.LENGTHS


def read(folder, **args):
    return episodes_of("rlds", path=str(folder), **args)


def assert_right(episodes, cameras=("image_0", "image_1")):
    assert [len(episode.view()) for episode in episodes] == list(LENGTHS)
    for i, episode in enumerate(episodes):
        assert episode.cameras == cameras and episode.instruction == f"task {i}"
        np.testing.assert_array_equal(episode.actions_TA.numpy(), made.actions(i)[:-1])
        np.testing.assert_array_equal(episode.proprio_TP.numpy(), made.state(i))
        for v, name in enumerate(cameras):
            np.testing.assert_array_equal(episode.view(name).numpy(), made.frames(i, v))


def test_checksums_are_those_of_the_standard():
    """RFC 3720, B.4: 32 bytes of zeros have the crc32c 8a9136aa."""
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def test_a_real_record():
    (episode,) = read(REAL)
    assert episode.id == "bridge_dataset/bridge_dataset-train-00000/00000"
    assert episode.instruction == "put carrot on plate"
    assert episode.frames_TVHWC.shape == (10, 4, 64, 64, 3)
    assert episode.actions_TA.shape == (9, 7) and episode.proprio_TP.shape == (10, 7)
    assert episode.fps is None and episode.success is None
    # Read by a struct of the bytes behind the names, not by any message.
    data = next(REAL.glob("*/*.tfrecord*")).read_bytes()
    for name, found in (("action", episode.actions_TA), ("observation/state", episode.proprio_TP)):
        at = data.index(f"steps/{name}".encode()) + len(f"steps/{name}")
        at = data.index(struct.pack("<BH", 0x0A, 0x0298), at) + 3  # a packed list of 280 bytes
        numbers = np.frombuffer(data[at : at + 280], "<f4").reshape(10, 7)
        np.testing.assert_array_equal(found.numpy(), numbers[: len(found)])


def test_the_contract_holds():
    assert "episodes: 1 of them, 1 read, well formed" in check_dataset(
        registries().datasets.build("rlds", {"path": str(REAL)})
    )


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("features", [made.FEATURES, None], ids=["described", "bare"])
def test_made_episodes(tmp_path, features, shards):
    folder = made.dataset(tmp_path, features=features, shards=shards)
    assert_right(read(folder))
    assert_right(read(tmp_path))  # the only one below
    assert check_dataset(registries().datasets.build("rlds", {"path": str(folder)}))


def test_sequence_examples_and_names_without_steps(tmp_path):
    for name, records in {
        "sequence": [made.sequence_example(made.steps(i)) for i in range(3)],
        "bare": [made.example(made.steps(i), prefix="") for i in range(3)],
    }.items():
        made.write(tmp_path / name / "play.tfrecord", records)
        assert_right(read(tmp_path / name, split="play"))
        assert_right(read(tmp_path / name, split=None))


def test_crops_and_workers(tmp_path):
    folder = made.dataset(tmp_path)
    crops = read(folder, window=3, cameras=["image_1"])
    assert len(crops) == sum(n - 2 for n in LENGTHS)
    crop = crops[5]  # the second episode from its second frame on
    assert crop.id == "toys/toys-train-00000/00001/1"
    np.testing.assert_array_equal(crop.actions_TA.numpy(), made.actions(1)[1:3])
    np.testing.assert_array_equal(crop.view().numpy(), made.frames(1, 1)[1:4])
    same_episode(pickle.loads(pickle.dumps(crops))[5], crop)
    assert crops[0].frames_TVHWC.shape == (3, 1, 32, 48, 3)
    assert read(folder, image_size=[8, 12])[0].frames_TVHWC.shape == (6, 2, 8, 12, 3)


def test_names_of_open_x_embodiment(tmp_path):
    """RT-1: actions in parts, the instruction within the observation; depth is no camera."""

    def steps(i):
        plain, parts = made.steps(i), made.actions(i)
        depth = made.encoded(np.full((32, 48), 3000, np.uint16))
        return {
            "observation/image": plain["observation/image_0"],
            "observation/depth": [depth] * LENGTHS[i],
            "observation/natural_language_instruction": plain["language_instruction"],
            "action/world_vector": list(parts[:, :3]),
            "action/rotation_delta": list(parts[:, 3:6]),
            "action/gripper": list(parts[:, 6:]),
            "reward": [0] * LENGTHS[i],
        }

    features = {
        "observation": made.dictionary(
            image=made.picture(), depth=made.picture("uint16", 1), natural_language_instruction={"text": {}}
        ),
        "action": made.dictionary(world_vector=made.tensor(3), rotation_delta=made.tensor(3), gripper=made.tensor(1)),
    }
    folder = made.dataset(tmp_path, [made.example(steps(i)) for i in range(3)], features)
    with pytest.raises(DataError, match=r"No action feature 'action'.*side by side: action/gripper\+action/rotation_"):
        read(folder)
    episodes = read(folder, action="world_vector+action/rotation_delta+gripper", fps=3)
    for i, episode in enumerate(episodes):
        assert (episode.cameras, episode.instruction, episode.fps) == (("image",), f"task {i}", 3.0)
        assert episode.proprio_TP is None
        np.testing.assert_array_equal(episode.actions_TA.numpy(), made.actions(i)[:-1])
    assert episodes.recording.left_out == ("episode_metadata/file_path", "observation/depth", "reward")
    with pytest.raises(DataError, match="range beyond 8 bits, as depth has"):
        read(folder, action="world_vector", camera="depth")[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"camera": "image_5"}, r"No camera 'image_5'.*Known: observation/image_0, observation/image_1"),
        ({"cameras": ["image_0", "observation/image_0"]}, "names one of them twice"),
        ({"action": "actoin"}, r"No action feature 'actoin'.*Did you mean 'action'"),
        ({"action": "language_instruction"}, "No action feature 'language_instruction'"),
        (
            {"proprio": "joints"},
            r"No feature of readings 'joints'.*Known: action, is_first, is_last, observation/state",
        ),
        ({"instruction_feature": "words"}, r"No instruction feature 'words'.*language_instruction"),
        ({"split": "val"}, r"No split 'val'\. Known: train\. split=null reads all files"),
    ],
)
def test_features_that_do_not_exist_are_listed(tmp_path, args, message):
    with pytest.raises(DataError, match=message):
        read(made.dataset(tmp_path), **args)


def test_options_that_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match="not both"):
        read(tmp_path, camera="a", cameras=["b"])
    with pytest.raises(ConfigError, match=r"fps is 0; it must be above 0"):
        read(tmp_path, fps=0)


def change(i, **changes):
    """An episode's steps with other values; None leaves a feature out."""
    steps = made.steps(i) | {name.replace("__", "/"): value for name, value in changes.items()}
    return made.example({name: value for name, value in steps.items() if value is not None})


ODD = {
    "one action less": (change(1, action=list(made.actions(1)[:-1])), "action of record 1 .*21 numbers for 4 steps"),
    "other width": (change(1, action=list(made.actions(1, 6))), "action of record 1 .* is 6 wide, not 7"),
    "NaN": (change(1, action=[np.full(7, np.nan, np.float32)] * 4), "action of record 1 .* contains NaN"),
    "no action": (change(1, action=None), "record 1 .* lacks action"),
    "no camera": (change(1, observation__image_0=None), "record 1 .* lacks observation/image_0"),
    "a picture less": (change(1, observation__image_1=made.steps(1)["observation/image_1"][1:]), "image_1 of record 1"),
    "no picture": (change(1, observation__image_0=[b"x"] * 4), "a picture of observation/image_0 in record 1"),
    "sizes": (
        change(1, observation__image_0=[made.encoded(np.zeros((8 + t, 8, 3), np.uint8)) for t in range(4)]),
        "image_0 in record 1 .* differ in size",
    ),
    "empty instruction": (change(1, language_instruction=[b" "] * 4), r"record 1 .* no instruction: language_instr"),
    "no text": (change(1, language_instruction=[b"\xff"] * 4), "language_instruction of record 1"),
    "numbers as text": (change(1, language_instruction=[1] * 4), "language_instruction of record 1"),
    "no message": (b"\x0a\xff\xff", "record 1 .*is no tf.train.Example"),
    "nothing": (b"", "record 1 .*has no features"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_episode_is_one_error_or_left_out(tmp_path, caplog, kind):
    odd, message = ODD[kind]
    folder = made.dataset(tmp_path, [made.example(made.steps(0)), odd, made.example(made.steps(2))], shards=1)
    with pytest.raises(DataError, match=message) as caught:
        read(folder)[1]
    assert "\n" not in str(caught.value)
    assert [episode.instruction for episode in read(folder, skip_bad=True)] == ["task 0", "task 2"]
    assert "1 bad episodes skipped, 2 are good" in caplog.text


def test_an_instruction_for_those_without(tmp_path):
    folder = made.dataset(tmp_path, [change(0, language_instruction=None), change(1, language_instruction=None)])
    with pytest.raises(DataError, match=r"no instructions where they are usual.*instruction="):
        read(folder)
    assert read(folder, instruction="wipe")[1].instruction == "wipe"


def damage(path, at, value=None):
    data = bytearray(path.read_bytes())
    if value is None:
        data[at] ^= 1
    path.write_bytes(data[:at] if value == "cut" else data)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: damage(path, 3), "is no TFRecord file, or compressed"),
        (lambda path: damage(path, 9), "is no TFRecord file, or compressed"),
        (lambda path: damage(path, 500), "record 0 of .* is damaged: its checksum is wrong"),
        (lambda path: damage(path, 500, "cut"), "is cut off in record 0"),
        (lambda path: damage(path, 0, "cut"), "has 0 records, but dataset_info.json counts 2"),
        (lambda path: path.write_bytes(b"hello"), "is cut off|no TFRecord"),
        (lambda path: path.unlink(), r"1 of the 2 files of split 'train' are missing \(00000"),
        (lambda path: (path.unlink(), path.mkdir()), "files of split 'train' are missing"),
        (lambda path: damage(path, places(path)[0].start + places(path)[0].length + 4, "cut"), "1 records.*counts 2"),
    ],
)
def test_a_damaged_file(tmp_path, harm, message):
    folder = made.dataset(tmp_path)
    harm(folder / "toys-train.tfrecord-00000-of-00002")
    with pytest.raises(DataError, match=message):
        list(read(folder))


def test_what_is_there_is_read_when_asked(tmp_path, caplog):
    folder = made.dataset(tmp_path)
    (folder / "toys-train.tfrecord-00000-of-00002").unlink()
    (folder / "._toys-train.tfrecord-00000-of-00002").write_bytes(bytes(60))
    assert [episode.instruction for episode in read(folder, skip_bad=True)] == ["task 2"]
    assert "are missing" in caplog.text


@pytest.mark.parametrize(
    ("name", "text"),
    [("features.json", "{"), ("features.json", '{"featuresDict": []}'), ("dataset_info.json", "[" * 9999),
     ("dataset_info.json", '{"splits": [{"name": "train", "shardLengths": ["x"]}]}')],
)  # fmt: skip
def test_damaged_metadata_names_the_file(tmp_path, name, text):
    (made.dataset(tmp_path) / name).write_text(text)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        read(tmp_path)


def test_metadata_of_a_windows_editor(tmp_path):
    folder = made.dataset(tmp_path)
    for path in folder.glob("*.json"):
        path.write_text(path.read_text(), encoding="utf-8-sig")
    assert_right(read(folder))


def test_folders_that_are_none_or_several(tmp_path):
    with pytest.raises(DataError, match=r"No folder .*path=FOLDER"):
        read(tmp_path / "no")
    with pytest.raises(DataError, match="holds no TFRecord files"):
        read(tmp_path)
    made.dataset(tmp_path)
    made.write(tmp_path / "toys/2.0.0/toys-train.tfrecord-00000-of-00001", [made.example(made.steps(0))])
    with pytest.raises(DataError, match=r"several RLDS datasets: toys/1\.0\.0, toys/2\.0\.0"):
        read(tmp_path)


def test_counting_reads_no_pictures(tmp_path, monkeypatch):
    """A large dataset is opened without reading it: only the first record is."""
    from gymnast_episodes import rlds

    folder, taken = made.dataset(tmp_path), []
    monkeypatch.setattr(rlds, "record", lambda place: taken.append(place.number) or record(place))
    monkeypatch.setattr(rlds, "read_picture", None)
    assert len(read(folder, window=2)) == sum(n - 1 for n in LENGTHS)
    assert taken == [0]


@pytest.mark.parametrize("to", ["lerobot-v3", "worldgym"])
def test_a_conversion(tmp_path, caplog, to):
    job = Conversion("rlds", {"path": str(REAL)}, to, tmp_path / "out", WriterOptions(robot="bridge"))
    with pytest.raises(DataError, match="--fps"):
        convert(job)
    convert(Conversion("rlds", {"path": str(REAL), "fps": 5}, to, tmp_path / "out", WriterOptions(robot="bridge")))
    (original,) = read(REAL)
    (copy,) = episodes_of("lerobot" if to == "lerobot-v3" else "worldgym-episodes", path=str(tmp_path / "out"))
    assert copy.fps == 5 and copy.instruction == original.instruction
    assert psnr(copy.view(), original.view()) > 38
    assert "Not read from the source, and not written: discount" in caplog.text
    if to == "lerobot-v3":
        assert copy.cameras == original.cameras
        assert torch.equal(copy.actions_TA, original.actions_TA) and torch.equal(copy.proprio_TP, original.proprio_TP)
    else:
        assert "camera image_1" in caplog.text


def test_dataset_info_without_lengths(tmp_path):
    folder = made.dataset(tmp_path)
    (folder / "dataset_info.json").write_text(json.dumps({"splits": [{"name": "train"}]}))
    assert_right(read(folder))
