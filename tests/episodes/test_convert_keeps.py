"""What a conversion keeps of its source, what it asks for, and what it says that a format cannot hold."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

import hand_made
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from clips import BRIDGE, decode_all, encode, episodes_of, nearest, pictures, psnr
from hand_made import LENGTHS, TOP, WRIST

from gymnast_core.cli import cli
from gymnast_core.errors import ConfigError, DataError, GymnastError
from gymnast_core.interfaces import Dataset
from gymnast_core.plugins.compose import registries
from gymnast_core.types import EnvironmentStart, Episode
from gymnast_episodes.conversion import Conversion, convert
from gymnast_episodes.writers import WriterOptions

NAMES = {"motors": ["x", "y", "z"]}
MAKERS = {"v2.1": hand_made.v21, "v3.0": hand_made.v3}


class Rich(Dataset):
    """Two episodes with everything that an episode can have."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        fps: float | None = 7.5
        """Frames a second."""
        cameras: list[str] | None = None
        """Names of the cameras."""
        odd: bool = False
        """Whether the second one is of another form."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self) -> list[Episode]:
        return [self._episode(0), self._episode(1)]

    def _episode(self, i: int) -> Episode:
        names = tuple(self.config.cameras or ("front", "wrist"))
        views = [torch.from_numpy(pictures(5, 40 * i + 200 * v)) for v in range(len(names))]
        return Episode(
            f"rich/{i}", "go", torch.stack(views, 1), torch.full((4, 7), 0.1 * i), names,
            proprio_TP=torch.rand(5, 2), fps=15.0 if self.config.odd and i else self.config.fps, success=True,
            outcomes={"stop": False}, points_TJ2=torch.rand(5, 1, 2),
        )  # fmt: skip


@pytest.fixture(autouse=True)
def _rich():
    registries().datasets.register("rich", Rich)


def run(source, out, to, dataset="lerobot", options=None, **args):
    options = WriterOptions(**(options or {}))
    return convert(Conversion(dataset, ({"path": str(source)} if source else {}) | args, to, Path(out), options))


def info(root):
    return json.loads((root / "meta/info.json").read_text())


@pytest.mark.parametrize("to", ["lerobot-v2.1", "lerobot-v3"])
@pytest.mark.parametrize("version", MAKERS)
def test_lerobot_to_lerobot_keeps_everything(tmp_path, caplog, version, to):
    source = MAKERS[version](tmp_path / "source", (TOP, WRIST))
    path = source / "meta/info.json"
    about = json.loads(path.read_text())
    about["features"]["action"]["names"] = NAMES
    about["features"]["observation.state"]["names"] = ["p", "q"]
    path.write_text(json.dumps(about))
    run(source, tmp_path / "out", to)
    before, after = info(source), info(tmp_path / "out")
    for key in ("fps", "robot_type", "total_episodes", "total_frames"):
        assert after[key] == before[key]
    assert after["features"].keys() == before["features"].keys()
    for key in ("action", "observation.state"):
        assert {**before["features"][key], "fps": 10} == {**after["features"][key], "fps": 10}
    assert after["features"][WRIST]["info"]["video.fps"] == 10
    for i, episode in enumerate(episodes_of("lerobot", path=str(tmp_path / "out"))):
        assert episode.cameras == ("top", "wrist") and episode.fps == 10
        np.testing.assert_array_equal(episode.actions_TA.numpy(), hand_made.actions(i)[:-1])
        np.testing.assert_array_equal(episode.proprio_TP.numpy(), hand_made.readings(i))
        for name, camera in (("top", TOP), ("wrist", WRIST)):
            assert nearest(episode.view(name), hand_made.frames(i, camera)) == list(range(LENGTHS[i]))
    assert caplog.text == ""


def test_statistics_of_readings_and_every_camera(tmp_path):
    source = hand_made.v3(tmp_path / "source", (TOP, WRIST))
    run(source, tmp_path / "out", "lerobot-v3")
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    readings = np.concatenate([hand_made.readings(i) for i in range(3)]).astype(np.float64)
    np.testing.assert_allclose(stats["observation.state"]["mean"], readings.mean(0), rtol=1e-6)
    assert {TOP, WRIST} <= stats.keys() and stats[WRIST]["mean"] != stats[TOP]["mean"]
    rows = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row[f"videos/{WRIST}/to_timestamp"] for row in rows] == [0.7, 1.9, 2.4]


def test_what_is_not_read_from_the_source_is_told(tmp_path, caplog):
    source = hand_made.v3(tmp_path / "source", (TOP, WRIST))
    run(source, tmp_path / "out", "lerobot-v2.1", camera=TOP, proprio=None)
    assert f"Not read from the source, and not written: {WRIST}, observation.state" in caplog.text
    assert WRIST not in info(tmp_path / "out")["features"]


@pytest.mark.parametrize("to", ["worldgym", "trials"])
def test_what_a_format_cannot_hold_is_told_once(tmp_path, caplog, to):
    source = hand_made.v21(tmp_path / "source", (TOP, WRIST))
    run(source, tmp_path / "out", to)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line == (
        f"{to} cannot hold, so that it is left out: camera wrist, the readings (proprio_TP), the names of the actions, "
        "the robot (so101)."
    )


def test_everything_that_an_episode_has_is_kept_or_told(tmp_path, caplog):
    run(None, tmp_path / "out", "lerobot-v3", "rich")
    (line,) = [record.getMessage() for record in caplog.records]
    lost = "points of interest"
    assert line == f"lerobot-v3 cannot hold, so that it is left out: {lost}."
    for episode, original in zip(
        episodes_of("lerobot", path=str(tmp_path / "out")), Rich(Rich.Config()).episodes(), strict=True
    ):
        assert (episode.fps, episode.cameras) == (7.5, ("front", "wrist"))
        assert psnr(episode.view("wrist"), original.view("wrist")) > 38


@pytest.mark.parametrize("to", ["lerobot-v2.1", "lerobot-v3", "worldgym"])
@pytest.mark.parametrize("rate", [30.0, 7.5, 29.97, 5.0])
def test_the_rate_is_that_of_the_source(tmp_path, to, rate):
    run(None, tmp_path / "out", to, "rich", {"robot": "bridge"}, fps=rate)
    name = "worldgym-episodes" if to == "worldgym" else "lerobot"
    assert [episode.fps for episode in episodes_of(name, path=str(tmp_path / "out"))] == [rate, rate]
    again = tmp_path / "again"
    run(tmp_path / "out", again, "lerobot-v3", name, proprio=None) if name == "lerobot" else run(
        tmp_path / "out", again, "lerobot-v3", name
    )
    assert info(again)["fps"] == rate


def test_another_rate_is_told(tmp_path, caplog):
    run(None, tmp_path / "out", "lerobot-v3", "rich", {"fps": 3})
    assert "Written at 3 frames a second, as --fps says; the source says 7.5." in caplog.text
    assert info(tmp_path / "out")["fps"] == 3


@pytest.mark.parametrize("to", ["lerobot-v2.1", "lerobot-v3", "worldgym"])
def test_a_rate_that_nobody_knows_is_asked_for(tmp_path, to):
    with pytest.raises(DataError, match=r"how many frames a second episode 'rich/0' has.*--fps N"):
        run(None, tmp_path / "out", to, "rich", fps=None)
    run(None, tmp_path / "out", to, "rich", {"fps": 4}, fps=None)
    run(None, tmp_path / "starts", "trials", "rich", fps=None)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"odd": True}, r"'rich/1' has .*fps 15\.0; the first one .*fps 7\.5"),
        ({"cameras": ["a/b"]}, "cannot hold a camera named 'a/b'"),
        ({"cameras": ["../x"]}, r"cannot hold a camera named '\.\./x'"),
    ],
)
def test_what_a_lerobot_dataset_cannot_hold(tmp_path, args, message):
    with pytest.raises(DataError, match=message):
        run(None, tmp_path / "out", "lerobot-v3", "rich", **args)


def test_a_main_camera_that_is_not_first_by_name_is_told(tmp_path, caplog):
    run(None, tmp_path / "out", "lerobot-v3", "rich", cameras=["wrist", "front"])
    assert "cameras=[wrist,front]" in caplog.text
    (first, _) = episodes_of("lerobot", path=str(tmp_path / "out"), cameras=["wrist", "front"])
    assert nearest(first.view(), pictures(5, 0)) == list(range(5))


# Bad episodes


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(4):
        encode(tmp_path / f"in/e{i}.mp4", pictures(5, 9 * i), fps=10)
        np.savez(tmp_path / f"in/e{i}.npz", np.zeros((5, 10)))
        (tmp_path / f"in/e{i}.json").write_text(json.dumps({"instruction": f"go {i}"}))
    (tmp_path / "in/e1.mp4").write_bytes(b"no video")
    (tmp_path / "in/e3.npz").write_bytes(b"no numbers")
    return tmp_path / "in"


@pytest.mark.parametrize("to", ["lerobot-v3", "lerobot-v2.1", "worldgym", "trials"])
def test_bad_episodes_are_left_out_as_it_goes(tmp_path, folder, caplog, to, monkeypatch):
    from gymnast_episodes import worldgym

    decoded, honest = [], worldgym.read_frames
    monkeypatch.setattr(worldgym, "read_frames", lambda path, *part: decoded.append(path.stem) or honest(path, *part))
    done = run(folder, tmp_path / "out", to, "worldgym-episodes", {"robot": "bridge"}, skip_bad=True)
    assert (done["episodes"], done["skipped"]) == (2, 1)
    assert decoded == ["e0", "e2"]  # each one once
    assert "e1.mp4" in caplog.text and "e3.npz" in caplog.text
    name = {"worldgym": "worldgym-episodes", "trials": "trials"}.get(to, "lerobot")
    made = registries().datasets.build(name, {"path": str(tmp_path / "out")})
    assert [item.instruction for item in (made.tasks() if to == "trials" else made.episodes())] == ["go 0", "go 2"]


def test_a_conversion_goes_on_behind_a_bad_episode(tmp_path, folder, monkeypatch):
    from gymnast_episodes import write_lerobot

    def interrupted():
        raise KeyboardInterrupt

    def again():
        return run(folder, tmp_path / "out", "lerobot-v3", "worldgym-episodes", skip_bad=True)

    honest, calls = write_lerobot.encode_video, []

    def twice(*args):
        calls.append(args)
        return interrupted() if len(calls) > 1 else honest(*args)

    monkeypatch.setattr(write_lerobot, "encode_video", twice)
    with pytest.raises(KeyboardInterrupt):
        again()
    monkeypatch.setattr(write_lerobot, "encode_video", honest)
    assert again() == {"output": str(tmp_path / "out"), "to": "lerobot-v3", "episodes": 2, "skipped": 1, "resumed": 2}


def test_no_good_episode_at_all(tmp_path, folder):
    for path in folder.glob("*.mp4"):
        path.write_bytes(b"no video")
    with pytest.raises(DataError, match=r"None of the 3 episodes could be read; the first fault: .*e0\.mp4"):
        run(folder, tmp_path / "out", "trials", "worldgym-episodes", skip_bad=True)
    with pytest.raises(DataError, match=r"Cannot read the video .*e0\.mp4"):
        (folder / "e3.npz").unlink()
        (folder / "e3.mp4").unlink()
        run(folder, tmp_path / "out2", "trials", "worldgym-episodes")


# The command line


def invoke(*arguments):
    return CliRunner().invoke(cli, ["convert", *map(str, arguments)])


@pytest.mark.parametrize("name", ["lr=0.1", "set #1", "data, v2: final", "a=b=c", "[1]", "${x}"])
def test_folders_with_signs(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / name
    source.mkdir()
    encode(source / "e.mp4", pictures(3), fps=10)
    np.savez(source / "e.npz", np.zeros((3, 10)))
    for out in (name, tmp_path / "out" / name):
        done = invoke("worldgym-episodes", f"path={source}", "instruction=x", "--to", "trials", out)
        if out == name:  # the source itself
            assert isinstance(done.exception, DataError) and "exists and is not the result" in str(done.exception)
        else:
            assert done.exit_code == 0, done.exception
            assert (tmp_path / "out" / name / "000000.json").exists()


@pytest.mark.parametrize("last", ["image_size=[8,8]", "imagesize=[8,8]", "path=x"])
def test_a_forgotten_folder_is_not_taken_for_an_option(last):
    error = invoke("worldgym-episodes", f"path={BRIDGE}", last, "--to", "trials").exception
    assert isinstance(error, ConfigError) and "Give a dataset and the folder to write" in str(error)


@pytest.mark.parametrize("fps", ["0", "-1", "nan", "1e9"])
def test_rates_that_are_none(tmp_path, fps):
    done = invoke(
        "worldgym-episodes", f"path={BRIDGE}", "instruction=x", "--to", "trials", "--fps", fps, tmp_path / "o"
    )
    assert done.exit_code == 2 and not isinstance(done.exception, GymnastError)
    assert "--fps" in done.output


def test_an_instruction_is_text_whatever_yaml_thinks(tmp_path):
    for i, said in enumerate(("pick up block #2", "no", "12:30", "open: slowly", "[red] block", "a\u2028b", "0x10")):
        out = tmp_path / str(i)
        done = invoke("worldgym-episodes", f"path={BRIDGE}", f"instruction={said}", "--to", "trials", out)
        assert done.exit_code == 0, done.exception
        assert json.loads((out / "000000.json").read_text())["instruction"] == said


def test_separators_in_an_instruction_survive_every_format(tmp_path):
    said = "put\u2028it\u0085down"
    run(
        BRIDGE,
        tmp_path / "a",
        "lerobot-v2.1",
        "worldgym-episodes",
        instruction=said,
        window=4,
        crops="first",
        image_size=[32, 32],
    )
    run(tmp_path / "a", tmp_path / "b", "lerobot-v3", camera="camera")
    run(tmp_path / "b", tmp_path / "c", "worldgym")
    for episode in episodes_of("worldgym-episodes", path=str(tmp_path / "c"), robot=None, action_dim=7):
        assert episode.instruction == said
    assert decode_all(tmp_path / "c/000000000.mp4").shape[0] == 4


# What is known of whole episodes, and lossless frames


class Known(Rich):
    """Three episodes of a simulator: a success, a failure, and one of which nobody knows."""

    def episodes(self) -> list[Episode]:
        known = [
            {"success": True, "outcomes": {"stop": False, "wave": True}, "start": START},
            {"success": False, "outcomes": {}},
            {"success": None, "outcomes": {}},
        ]
        made = [self._episode(i % 2) for i in range(3)]
        return [replace(one, id=f"known/{i}", points_TJ2=None, **known[i]) for i, one in enumerate(made)]


START = EnvironmentStart("pkg:Door-v0", 7, {"goal": [0.1, 0.2]}, {"size": 64, "view": {"fov": 50}})


@pytest.mark.parametrize("to", ["lerobot-v2.1", "lerobot-v3"])
def test_success_hindsight_and_start_come_back(tmp_path, caplog, to):
    registries().datasets.register("known", Known)
    run(None, tmp_path / "out", to, "known")
    assert caplog.text == ""
    first, second, third = episodes_of("lerobot", path=str(tmp_path / "out"))
    assert (first.success, first.outcomes, first.start) == (True, {"stop": False, "wave": True}, START)
    assert (second.success, second.outcomes, second.start) == (False, {}, None)
    assert third.success is None
    (task, *_) = (
        registries()
        .datasets.build("episode-starts", {"episodes": {"name": "lerobot", "args": {"path": str(tmp_path / "out")}}})
        .tasks()
    )
    assert task.start == START
    middle, *_, last = episodes_of("lerobot", path=str(tmp_path / "out"), window=4)[:2]
    assert (middle.success, middle.start, last.success, last.start) == (None, START, True, None)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"gymnast/success": 1}, "gymnast/success is 1; it must be true or false"),
        ({"gymnast/outcomes": {"go": "yes"}}, 'go is "yes"; it must be true or false'),
        ({"gymnast/outcomes": "[1]"}, "must hold an object"),
        ({"gymnast/start": {"id": "Door-v0"}}, "seed is missing"),
        ({"gymnast/start": {"id": "Door-v0", "seed": -1, "options": {}, "args": {}}}, "at least 0"),
    ],
)
def test_damaged_labels_are_named(tmp_path, labels, message):
    run(None, tmp_path / "out", "lerobot-v2.1", "rich")
    path = tmp_path / "out/meta/episodes.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | labels) + "\n" for row in rows))
    with pytest.raises(DataError, match=f"episodes.jsonl, episode 1.*{re.escape(message)}"):
        episodes_of("lerobot", path=str(tmp_path / "out"))


@pytest.mark.parametrize("options", [{"pixel_format": "rgb24"}, {"frames": "png"}])
@pytest.mark.parametrize("to", ["lerobot-v2.1", "lerobot-v3"])
def test_lossless_frames_are_what_was_written(tmp_path, to, options):
    run(None, tmp_path / "out", to, "rich", options)
    for episode, original in zip(
        episodes_of("lerobot", path=str(tmp_path / "out")), Rich(Rich.Config()).episodes(), strict=True
    ):
        assert torch.equal(episode.frames_TVHWC, original.frames_TVHWC)
        assert episode.cameras == original.cameras
    crop = episodes_of("lerobot", path=str(tmp_path / "out"), window=2)[-1]
    assert torch.equal(crop.frames_TVHWC, original.frames_TVHWC[-2:])
    assert bool(list((tmp_path / "out").rglob("*.mp4"))) == (options.get("frames") != "png")


def test_a_format_without_pictures_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"worldgym cannot store frames as png.*lerobot-v2.1, lerobot-v3"):
        run(None, tmp_path / "out", "worldgym", "rich", {"frames": "png", "robot": "bridge"})
