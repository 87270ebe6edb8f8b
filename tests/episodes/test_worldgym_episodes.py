"""Folders of NAME.mp4 + NAME.npz, on two episodes of BridgeData V2 (CC BY 4.0, see tests/golden/episodes)."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from clips import BRIDGE, encode, episodes_of, pictures, same_episode
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.plugins.compose import registries
from gymnast_episodes.robots import robot

GOLDEN = BRIDGE.parent
FACTS = json.loads((GOLDEN / "facts.json").read_text())


def bridge(**args):
    return episodes_of("worldgym-episodes", path=str(BRIDGE), **{"instruction": "lift the pot", **args})


def pair(folder, name="a", frames=12, actions=None, instruction="push"):
    encode(folder / f"{name}.mp4", pictures(frames))
    rng = np.random.default_rng(len(name) + frames)
    stored = np.zeros((frames, 10), np.float32)
    stored[:, :6] = rng.uniform(-1, 1, (frames, 6))
    stored[:, 6] = rng.choice([-1, 1], frames)
    np.savez(folder / f"{name}.npz", stored if actions is None else actions)
    if instruction is not None:
        (folder / f"{name}.json").write_text(json.dumps({"instruction": instruction}))
    return stored


@pytest.mark.parametrize("name", FACTS)
def test_facts_of_real_episodes(name):
    facts = FACTS[name]
    (raw,) = [episode for episode in bridge(robot=None) if episode.id.endswith(name)]
    assert raw.view().shape == (facts["n_frames"], facts["height"], facts["width"], 3)
    means_T3 = raw.view().double().mean((1, 2))
    assert (means_T3 - torch.tensor(facts["frame_rgb_mean"])).abs().max() <= 2
    with np.load(BRIDGE / f"{name}.npz") as archive:
        stored = archive["arr_0"]
    assert hashlib.sha256(stored.tobytes()).hexdigest() == facts["action_sha256"]
    assert list(stored.shape) == facts["action_shape"]
    assert raw.actions_TA.dtype == torch.float32
    np.testing.assert_array_equal(raw.actions_TA.numpy(), stored[:-1])
    assert stored.min(0).tolist() == facts["action_min"]


def test_robot_units_are_metres_and_radians_and_turn_back_into_the_stored_numbers():
    for own, raw in zip(bridge(), bridge(robot=None), strict=True):
        assert own.actions_TA.shape == (len(own.view()) - 1, 7)
        torch.testing.assert_close(own.actions_TA[:, :3], raw.actions_TA[:, :3] * 0.05 / 1.75)
        torch.testing.assert_close(own.actions_TA[:, 3:6], raw.actions_TA[:, 3:6] * 0.25 / 1.4)
        # Recorded +1 is closed; a policy closes with 0.
        assert torch.equal(own.actions_TA[:, 6], (raw.actions_TA[:, 6] < 0).float())
        torch.testing.assert_close(robot("bridge").to_model(own.actions_TA), raw.actions_TA[:, :7])


def test_resizing_is_that_of_the_training_data():
    reference = load_file(GOLDEN / "resized.safetensors")
    for size in ([64, 64], [48, 96]):
        (episode,) = [e for e in bridge(image_size=size) if e.id.endswith("000000008")]
        expected = reference["resized_64" if size == [64, 64] else "resized_48x96"].float() * 255
        assert episode.view().dtype == torch.uint8
        assert (episode.view()[:2].float() - expected).abs().max() <= 2


def test_crops_are_the_same_frames_and_actions_as_the_whole():
    whole = {episode.id: episode for episode in bridge()}
    crops = bridge(window=5)
    assert len(crops) == (23 - 4) + (49 - 4)
    for index in (0, 7, 18, 19, 40, -1):
        name, _, start = crops[index].id.rpartition("/")
        full, at = whole[name], int(start)
        assert torch.equal(crops[index].view(), full.view()[at : at + 5])
        assert torch.equal(crops[index].actions_TA, full.actions_TA[at : at + 4])
    assert [crop.id.rpartition("/")[2] for crop in bridge(window=5, crops="first")] == ["0", "0"]
    assert len({crop.id for crop in bridge(window=5)[::9]}) == len(bridge(window=5)[::9])


def test_one_crop_an_episode_is_drawn_by_the_seed():
    drawn = [[crop.id for crop in bridge(window=5, crops="one", seed=seed)] for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2] or drawn[0] != drawn[3]


def test_episodes_shorter_than_the_window_are_left_out(caplog):
    assert len(bridge(window=30)) == 20
    assert "1 episodes are shorter than 30 frames" in caplog.text
    with pytest.raises(DataError, match=r"no episode to read.*the longest has 49 frames.*window: 50"):
        bridge(window=50)


def test_parts_split_whole_episodes(tmp_path):
    for i in range(10):
        pair(tmp_path, f"e{i}", 4)
    ids = {
        part: {e.id for e in episodes_of("worldgym-episodes", path=str(tmp_path), part=part, validation_fraction=0.3)}
        for part in ("train", "validation", "all")
    }
    assert len(ids["train"]) == 7
    assert len(ids["validation"]) == 3
    assert ids["train"] | ids["validation"] == ids["all"]


def test_an_episode_travels_to_data_loader_workers():
    crops = bridge(window=4)
    crops[3]
    same_episode(pickle.loads(pickle.dumps(crops))[3], crops[3])
    assert len(pickle.dumps(crops)) < 20_000
    loaded = list(DataLoader(crops, batch_size=8, num_workers=2, collate_fn=list))
    assert [episode.id for batch in loaded for episode in batch] == [episode.id for episode in crops]


def test_sources_of_the_instruction(tmp_path):
    pair(tmp_path, "json", instruction="from json")
    pair(tmp_path, "text", instruction=None)
    (tmp_path / "text.txt").write_text("from text\n")
    pair(tmp_path, "plain", instruction=None)
    episodes = episodes_of("worldgym-episodes", path=str(tmp_path), instruction="default")
    found = {episode.id.rpartition("/")[2]: episode.instruction for episode in episodes}
    assert found == {"json": "from json", "plain": "default", "text": "from text"}
    with pytest.raises(DataError, match=r"No instruction for .*plain\.mp4.*plain\.json.*instruction="):
        episodes_of("worldgym-episodes", path=str(tmp_path))


def _pickled(folder):
    pair(folder)
    with (folder / "a.npz").open("wb") as file:
        np.savez(file, np.array([{"a": 1}], dtype=object))


def _nan(folder):
    stored = pair(folder)
    stored[5, 2] = np.nan
    np.savez(folder / "a.npz", stored)


def _damaged(folder):
    stored = pair(folder)
    np.savez_compressed(folder / "a.npz", stored)
    content = bytearray((folder / "a.npz").read_bytes())
    content[100:200] = bytes(100)
    (folder / "a.npz").write_bytes(content)


BROKEN = {
    "corrupt video": (lambda f: (pair(f), (f / "a.mp4").write_bytes((f / "a.mp4").read_bytes()[:900])), r"a\.mp4"),
    "lengths differ": (
        lambda f: pair(f, actions=np.zeros((11, 10))),
        r"12 frames, but a\.npz has 11 actions",
    ),
    "NaN": (_nan, r"a\.npz: action 5 contains NaN"),
    "wrong width": (
        lambda f: pair(f, actions=np.zeros((12, 7))),
        r"a\.npz: arr_0 is float64 \(12, 7\).*, 10\)",
    ),
    "pickled object": (_pickled, r"a\.npz: it holds pickled objects"),
    "no npz": (lambda f: (pair(f), (f / "a.npz").unlink()), r"No a\.npz beside"),
    "no zip": (lambda f: (pair(f), (f / "a.npz").write_text("hello")), r"a\.npz"),
    "damaged npz": (_damaged, r"a\.npz"),
    "empty npz": (lambda f: (pair(f), (f / "a.npz").write_bytes(b"")), r"a\.npz"),
    "truncated npz": (lambda f: (pair(f), (f / "a.npz").write_bytes((f / "a.npz").read_bytes()[:200])), r"a\.npz"),
    "other name in the npz": (lambda f: (pair(f), np.savez(f / "a.npz", actions=np.zeros((12, 10)))), "arr_0"),
    "broken json": (lambda f: (pair(f), (f / "a.json").write_text("{")), r"a\.json"),
    "another robot": (lambda f: pair(f, actions=np.full((12, 10), 9.0)), r"a\.npz: .*robot"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_episode_is_one_error_or_skipped(tmp_path, caplog, kind):
    make, message = BROKEN[kind]
    make(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        episodes_of("worldgym-episodes", path=str(tmp_path))[0]
    assert "\n" not in str(caught.value)
    pair(tmp_path, "good", 9)
    kept = episodes_of("worldgym-episodes", path=str(tmp_path), skip_bad=True)
    assert [episode.id.rpartition("/")[2] for episode in kept] == ["good"]
    assert "1 bad episodes skipped, 1 are good" in caplog.text
    assert "/a:" in caplog.text


def test_skipping_does_not_move_the_other_crops(tmp_path):
    for i in range(6):
        pair(tmp_path, f"e{i}", 9)
    before = {e.id for e in episodes_of("worldgym-episodes", path=str(tmp_path), window=3, crops="one")}
    (tmp_path / "e2.npz").write_bytes(b"")
    after = {e.id for e in episodes_of("worldgym-episodes", path=str(tmp_path), window=3, crops="one", skip_bad=True)}
    assert after == {id for id in before if "/e2/" not in id}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"crops": "al"}, "Did you mean 'all'"),
        ({"part": "test"}, "Known: all, train, validation"),
        ({"window": 1}, "window is 1; it must be at least 2"),
        ({"validation_fraction": 1.0}, "must be at least 0 and below 1"),
        ({"image_size": [64]}, "give height and width"),
        ({"image_size": [64, 10**9]}, r"image_size\[1\] is 1000000000; it must be at least 1 and at most 16384"),
        ({"robot": "brigde"}, "Did you mean 'bridge'"),
    ],
)
def test_bad_options(args, message):
    with pytest.raises(ConfigError, match=message):
        registries().datasets.build("worldgym-episodes", {"path": str(BRIDGE), **args})


def test_a_folder_that_is_not_there_or_empty(tmp_path):
    with pytest.raises(DataError, match=r"No folder .*path=FOLDER"):
        episodes_of("worldgym-episodes", path=str(tmp_path / "no"))
    with pytest.raises(DataError, match=r"No \.mp4 files"):
        episodes_of("worldgym-episodes", path=str(tmp_path))


def test_files_of_other_tools_do_not_disturb(tmp_path):
    shutil.copytree(BRIDGE, tmp_path / "bridge")
    (tmp_path / "bridge" / "train" / "._000000004.mp4").write_bytes(b"resource fork")
    assert len(episodes_of("worldgym-episodes", path=str(tmp_path / "bridge"), instruction="x")) == 2
