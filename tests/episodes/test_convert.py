"""`gymnast convert`: what is written reads back, whatever interrupts it."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from clips import BRIDGE, episodes_of, pictures, psnr, same_episode

from gymnast_core.errors import ConfigError, DataError, PluginError
from gymnast_core.interfaces import Dataset
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Episode, one_camera
from gymnast_episodes import conversion, encode, write_lerobot
from gymnast_episodes.conversion import Conversion, convert
from gymnast_episodes.writers import WriterOptions, load_writer, writer_names

CAMERA = "observation.images.camera"
SOURCE = {"path": str(BRIDGE), "instruction": "lift the pot", "image_size": [64, 96]}
FORMATS = {
    "lerobot-v3": ("lerobot", {}),
    "lerobot-v2.1": ("lerobot", {}),
    "worldgym": ("worldgym-episodes", {}),
}


class Toys(Dataset):
    """Five episodes of moving blocks, with two instructions."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        count: int = 5
        """Episodes."""
        odd_one: str = "none"
        """What is wrong with the third episode: none, size, nan, short."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self) -> list[Episode]:
        return [self._episode(i) for i in range(self.config.count)]

    def _episode(self, i: int) -> Episode:
        odd = self.config.odd_one if i == 2 else "none"
        size = (48, 48) if odd == "size" else (32, 48)
        frames = torch.from_numpy(pictures(4 + i, 20 * i, *size))
        actions = torch.randn(3 + i, 7, generator=torch.Generator().manual_seed(i))
        actions = actions * 0.01
        actions[:, 6] = (torch.arange(3 + i) % 2).float()
        if odd == "nan":
            actions[1, 0] = torch.nan
        if odd == "short":
            actions = actions[1:]
        return Episode(f"toys/{i}", f"push {i % 2}", one_camera(frames), actions)


@pytest.fixture(autouse=True)
def _toys():
    registries().datasets.register("toys", Toys)


def run(to, out, dataset="toys", args=None, **options):
    return convert(
        Conversion(dataset, args or {}, to, Path(out), WriterOptions(**{"robot": "bridge", "fps": 10, **options}))
    )


def read(to, out):
    name, args = FORMATS[to]
    return episodes_of(name, path=str(out), **args)


def same_outcome(to, out, undisturbed):
    """The same files; the same frames up to the codec's error, everything else to the byte."""
    a, b = files(out), files(undisturbed)
    assert a.keys() == b.keys()
    assert all(a[name] == b[name] for name in a if not name.endswith(".mp4"))
    for first, second in zip(read(to, out), read(to, undisturbed), strict=True):
        assert torch.equal(first.actions_TA, second.actions_TA)
        assert psnr(first.view(), second.view()) > 38


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_was_made_of_other_contents_is_not_taken_for_the_same(tmp_path, monkeypatch):
    """The arguments are the same; what lies behind them is not."""
    source = tmp_path / "source"
    run("lerobot-v3", source)
    args = {"path": str(source)}
    for _ in range(2):
        run("lerobot-v3", tmp_path / "out", "lerobot", args)
    file = next(source.rglob("*.parquet"))
    os.utime(file, ns=(0, time.time_ns()))
    with pytest.raises(DataError, match=rf"out was made from {source} as that was then.*Remove"):
        run("lerobot-v3", tmp_path / "out", "lerobot", args)
    os.utime(file, ns=(0, json.loads((tmp_path / "out/conversion.json").read_text())["inputs"][str(source)][2]))
    # The same place in another spelling is no other source.
    monkeypatch.chdir(tmp_path)
    assert run("lerobot-v3", tmp_path / "out", "lerobot", {"path": "./source"})["resumed"] == 5
    # One that was made before anybody noted it is taken as it is.
    manifest = tmp_path / "out/conversion.json"
    earlier = json.loads(manifest.read_text())
    assert list(earlier.pop("inputs")) == [str(source)]
    manifest.write_text(json.dumps(earlier))
    assert run("lerobot-v3", tmp_path / "out", "lerobot", args)["resumed"] == 5


def test_what_is_written_meanwhile_is_no_input(tmp_path):
    """A judge's answers are kept in a file that grows, and a name may be that of a folder nearby."""
    cache = tmp_path / "answers.sqlite"
    cache.write_text("1")
    checkpoint = tmp_path / "policy"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_text("1")
    truth = {"name": "gpt-4o", "args": {"cache": str(cache)}}
    args = {"truth": truth, "policy": {"name": "tests", "args": {"checkpoint": str(checkpoint)}}, "part": "tests"}
    assert list(conversion._inputs(args)) == [str(checkpoint)]


@pytest.mark.parametrize("to", FORMATS)
def test_real_episodes_read_back(tmp_path, to):
    summary = run(to, tmp_path / "out", "worldgym-episodes", SOURCE, fps=5)
    assert summary == {"output": str(tmp_path / "out"), "episodes": 2, "to": to, "resumed": 0}
    originals = episodes_of("worldgym-episodes", **SOURCE)
    for original, copy in zip(originals, read(to, tmp_path / "out"), strict=True):
        assert copy.instruction == "lift the pot"
        assert copy.view().shape == original.view().shape
        assert psnr(copy.view(), original.view()) > 38
        if to == "worldgym":
            torch.testing.assert_close(copy.actions_TA, original.actions_TA, rtol=1e-6, atol=1e-8)
        else:
            assert torch.equal(copy.actions_TA, original.actions_TA)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("to", FORMATS)
def test_formats_turn_into_each_other(tmp_path, to):
    run(to, tmp_path / "first")
    name, args = FORMATS[to]
    run("lerobot-v3", tmp_path / "second", name, {"path": str(tmp_path / "first"), **args})
    pairs = zip(read(to, tmp_path / "first"), read("lerobot-v3", tmp_path / "second"), strict=True)
    for i, (first, second) in enumerate(pairs):
        assert first.instruction == second.instruction == f"push {i % 2}"
        assert torch.equal(first.actions_TA, second.actions_TA)
        assert psnr(second.view(), first.view()) > 38


def test_the_tabletop_recorders_episodes(tmp_path):
    from gymnast_tabletop.record import Recording, record

    record(Recording(episodes=3, actions=6, image_size=32), tmp_path / "play", workers=1)
    source = {"path": str(tmp_path / "play")}
    run("lerobot-v3", tmp_path / "out", "tabletop-episodes", source, robot=None)
    originals = episodes_of("tabletop-episodes", **source)
    for original, copy in zip(originals, read("lerobot-v3", tmp_path / "out"), strict=True):
        assert copy.instruction == original.instruction
        assert torch.equal(copy.actions_TA, original.actions_TA)
        assert psnr(copy.view(), original.view()) > 38


def test_lerobot_v3_is_laid_out_as_documented(tmp_path):
    run("lerobot-v3", tmp_path / "out", fps=20)
    meta, lengths = tmp_path / "out" / "meta", [4, 5, 6, 7, 8]
    info = json.loads((meta / "info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"], info["fps"]) == (5, 30, 2, 20)
    assert info["splits"] == {"train": "0:5"}
    assert info["features"]["action"]["shape"] == [7]
    assert info["features"][CAMERA]["shape"] == [32, 48, 3]
    rows = pq.read_table(meta / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()
    assert [row["length"] for row in rows] == lengths
    assert [row["dataset_from_index"] for row in rows] == [0, 4, 9, 15, 22]
    assert [row["dataset_to_index"] for row in rows] == [4, 9, 15, 22, 30]
    assert [row["tasks"] for row in rows] == [["push 0"], ["push 1"], ["push 0"], ["push 1"], ["push 0"]]
    starts = [row[f"videos/{CAMERA}/from_timestamp"] for row in rows]
    np.testing.assert_allclose(starts, np.array([0, 4, 9, 15, 22]) / 20)
    data = pq.ParquetFile(tmp_path / "out" / "data" / "chunk-000" / "file-000.parquet")
    table = data.read()
    assert data.num_row_groups == 5
    assert table["index"].to_pylist() == list(range(30))
    assert table["frame_index"].to_pylist() == [t for n in lengths for t in range(n)]
    np.testing.assert_allclose(table["timestamp"].to_numpy(), np.array(table["frame_index"]) / 20, rtol=1e-6)
    tasks = pq.read_table(meta / "tasks.parquet")
    assert tasks["task"].to_pylist() == ["push 0", "push 1"]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


@pytest.mark.parametrize("to", ["lerobot-v3", "lerobot-v2.1"])
def test_statistics_are_those_of_the_stored_numbers(tmp_path, to):
    run(to, tmp_path / "out")
    tables = [pq.ParquetFile(path).read() for path in sorted((tmp_path / "out" / "data").rglob("*.parquet"))]
    actions = [np.array(table["action"].to_pylist(), np.float64) for table in tables]
    frames = Toys(Toys.Config()).episodes()
    if to == "lerobot-v3":
        stats = json.loads((tmp_path / "out" / "meta" / "stats.json").read_text())
        pixels = torch.cat([episode.view().flatten(0, 2) for episode in frames]).double() / 255
    else:
        line = (tmp_path / "out" / "meta" / "episodes_stats.jsonl").read_text().splitlines()[3]
        stats, actions = json.loads(line)["stats"], [actions[3]]
        pixels = frames[3].view().flatten(0, 2).double() / 255
    values = torch.from_numpy(np.concatenate(actions))
    for key, all_rows, shape in (("action", values, (7,)), (CAMERA, pixels, (3, 1, 1))):
        expected = {
            "min": all_rows.amin(0),
            "max": all_rows.amax(0),
            "mean": all_rows.mean(0),
            "std": all_rows.std(0, correction=0),
        }
        for name, numbers in expected.items():
            np.testing.assert_allclose(np.array(stats[key][name]), numbers.reshape(shape).numpy(), atol=1e-9)
    assert stats["action"]["count"] == [len(values)]


@pytest.mark.parametrize("megabytes", [0, 200])
def test_files_are_filled_up_to_their_size_and_numbered(tmp_path, monkeypatch, megabytes):
    monkeypatch.setattr(write_lerobot, "_VIDEO_MB", megabytes)
    monkeypatch.setattr(write_lerobot, "_DATA_MB", megabytes)
    monkeypatch.setattr(write_lerobot, "_FILES_A_CHUNK", 2)
    run("lerobot-v3", tmp_path / "out")
    folder = tmp_path / "out" / "videos" / CAMERA
    videos = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.mp4"))
    alone = [f"chunk-{chunk:03d}/file-{file:03d}" for chunk, file in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))]
    assert videos == [f"{name}.mp4" for name in (alone[:1] if megabytes else alone)]
    run("lerobot-v2.1", tmp_path / "v21")
    for a, b in zip(read("lerobot-v3", tmp_path / "out"), read("lerobot-v2.1", tmp_path / "v21"), strict=True):
        same_episode(a, b)


def test_worldgym_files_pair_every_frame_with_an_action_in_model_units(tmp_path):
    run("worldgym", tmp_path / "out")
    with np.load(tmp_path / "out" / "000000003.npz", allow_pickle=False) as archive:
        stored = archive["arr_0"]
    original = Toys(Toys.Config()).episodes()[3].actions_TA.numpy()
    assert stored.shape == (7, 10)
    assert stored.dtype == np.float32
    np.testing.assert_allclose(stored[:-1, :3], original[:, :3] * 35, rtol=1e-5)
    np.testing.assert_array_equal(stored[:-1, 6], 1 - 2 * original[:, 6])
    # The action after the last frame does not move, and leaves the gripper alone.
    assert stored[-1].tolist() == [0, 0, 0, 0, 0, 0, stored[-2, 6], 0, 0, 0]
    assert (stored[:, 7:] == 0).all()


def test_worldgym_without_a_robot_stores_actions_as_they_are(tmp_path):
    run("worldgym", tmp_path / "out", robot=None)
    copies = episodes_of("worldgym-episodes", path=str(tmp_path / "out"), robot=None, action_dim=7)
    for copy, original in zip(copies, Toys(Toys.Config()).episodes(), strict=True):
        assert torch.equal(copy.actions_TA, original.actions_TA)


def test_actions_that_the_robot_cannot_do_are_counted(tmp_path, caplog, monkeypatch):
    honest = Toys._episode

    def wild(self, i):
        episode = honest(self, i)
        episode.actions_TA[0, 1] = 0.5
        return episode

    monkeypatch.setattr(Toys, "_episode", wild)
    run("worldgym", tmp_path / "out")
    assert "5 actions of 5 episodes lie outside of what robot 'bridge' can do" in caplog.text
    assert read("worldgym", tmp_path / "out")[0].actions_TA[0, 1] == pytest.approx(0.05)


def test_trials(tmp_path):
    run("trials", tmp_path / "out")
    tasks = registries().datasets.build("trials", {"path": str(tmp_path / "out")}).tasks()
    for i, (task, original) in enumerate(zip(tasks, Toys(Toys.Config()).episodes(), strict=True)):
        assert task.instruction == f"push {i % 2}"
        assert torch.equal(task.view(), original.view()[:1])


def killed_by_itself(module, name, call, job):
    """Run `job` in a child that dies by SIGKILL in the given call of `module.name`, after its work is done."""
    child = os.fork()
    if child == 0:
        original, calls = getattr(module, name), []

        def deadly(*args):
            result = original(*args)
            calls.append(1)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(module, name, deadly)
        # Whatever happens, the child must not go on with the tests.
        try:
            job()
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.parametrize(
    ("to", "where", "call", "resumed"),
    [
        ("lerobot-v3", "encode_video", 3, 2),
        ("lerobot-v3", "join_videos", 1, 5),
        ("lerobot-v3", "_write_json", 2, 5),
        ("lerobot-v2.1", "_write_lines", 2, 5),
    ],
)
def test_a_killed_conversion_is_finished_by_the_same_call(tmp_path, to, where, call, resumed):
    killed_by_itself(write_lerobot, where, call, lambda: run(to, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert run(to, tmp_path / "out")["resumed"] == resumed
    run(to, tmp_path / "undisturbed")
    same_outcome(to, tmp_path / "out", tmp_path / "undisturbed")


def test_a_record_that_was_cut_off_is_written_again(tmp_path):
    killed_by_itself(write_lerobot, "encode_video", 3, lambda: run("lerobot-v3", tmp_path / "out"))
    log = tmp_path / ".out.converting" / ".conversion" / "records.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    assert run("lerobot-v3", tmp_path / "out")["resumed"] == 1
    run("lerobot-v3", tmp_path / "undisturbed")
    same_outcome("lerobot-v3", tmp_path / "out", tmp_path / "undisturbed")


def test_a_finished_conversion_is_left_alone(tmp_path):
    run("worldgym", tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert run("worldgym", tmp_path / "out")["resumed"] == 5
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_foreign_folder_is_refused(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="exists and is not the result of this conversion"):
        run("worldgym", out)
    assert files(out) == {"thesis.txt": b"precious"}
    (out / "thesis.txt").unlink()
    run("worldgym", out)
    with pytest.raises(DataError, match="exists and is not the result"):
        run("worldgym", out, fps=20)


def test_the_beginning_of_another_conversion_is_refused(tmp_path):
    killed_by_itself(write_lerobot, "encode_video", 2, lambda: run("lerobot-v3", tmp_path / "out"))
    with pytest.raises(DataError, match=r"holds the beginning of another conversion.*lerobot-v3"):
        run("lerobot-v2.1", tmp_path / "out")


def test_two_processes_do_not_write_the_same_folder(tmp_path, monkeypatch):
    def second(*_):
        with pytest.raises(DataError, match="Another process is converting"):
            run("lerobot-v3", tmp_path / "out")
        raise KeyboardInterrupt

    monkeypatch.setattr(write_lerobot, "encode_video", second)
    with pytest.raises(KeyboardInterrupt):
        run("lerobot-v3", tmp_path / "out")


@pytest.mark.parametrize(
    ("odd_one", "to", "message"),
    [
        ("size", "lerobot-v3", r"'toys/2' has .*height 48, width 48, actions 7.*image_size"),
        ("nan", "worldgym", "'toys/2' has NaN"),
        ("short", "trials", r"'toys/2' has 6 frames and actions \(4, 7\)"),
    ],
)
def test_an_episode_that_cannot_be_written(tmp_path, odd_one, to, message):
    with pytest.raises(DataError, match=message):
        run(to, tmp_path / "out", args={"odd_one": odd_one})
    assert not (tmp_path / "out").exists()


def test_bad_requests(tmp_path):
    with pytest.raises(DataError, match="actions of width 7, but robot 'cable_routing' takes 6"):
        run("worldgym", tmp_path / "a", robot="cable_routing")
    with pytest.raises(PluginError, match=r"No episode format 'lerobot-v4'\. Did you mean 'lerobot-v3'"):
        run("lerobot-v4", tmp_path / "b")
    with pytest.raises(PluginError, match="No dataset 'toyz'"):
        run("trials", tmp_path / "c", "toyz")
    with pytest.raises(DataError, match="holds no episodes"):
        run("trials", tmp_path / "d", "tabletop")
    with pytest.raises(DataError, match=r"even sides; the frames are 5x7\. Use --pixel-format yuv444p"):
        encode.encode_video(tmp_path / "e.mp4", torch.zeros(2, 5, 7, 3, dtype=torch.uint8), 10, "yuv420p")
    with pytest.raises(ConfigError, match="No pixel format 'rgb'"):
        encode.encode_video(tmp_path / "f.mp4", torch.zeros(2, 4, 4, 3, dtype=torch.uint8), 10, "rgb")


def test_odd_sides_and_playable_videos(tmp_path):
    frames = torch.from_numpy(pictures(3, 0, 33, 47))
    encode.encode_video(tmp_path / "odd.mp4", frames, 10, "yuv444p")
    from gymnast_episodes.video import read_frames

    assert psnr(torch.from_numpy(read_frames(tmp_path / "odd.mp4")), frames) > 38
    run("lerobot-v3", tmp_path / "out", pixel_format="yuv420p")
    assert read("lerobot-v3", tmp_path / "out")[0].view().shape == (4, 32, 48, 3)


def test_a_third_partys_format(tmp_path, monkeypatch):
    package = tmp_path / "site"
    (package / "gymnast_counting-1.dist-info").mkdir(parents=True)
    (package / "gymnast_counting-1.dist-info" / "METADATA").write_text("Name: gymnast-counting\nVersion: 1\n")
    (package / "gymnast_counting-1.dist-info" / "entry_points.txt").write_text(
        "[gymnast.episode_writers]\ncounts = counting_writer:Counts\nbroken = counting_writer:Missing\n"
    )
    (package / "counting_writer.py").write_text(
        "from gymnast_episodes.writers import EpisodeWriter\n"
        "class Counts(EpisodeWriter):\n"
        "    def write(self, index, episode):\n"
        "        (self.root / f'{index}.txt').write_text(str(len(episode.frames_TVHWC)))\n"
        "        return {}\n"
    )
    monkeypatch.syspath_prepend(str(package))
    assert {"counts", "lerobot-v2.1", "lerobot-v3", "trials", "worldgym"} <= set(writer_names())
    run("counts", tmp_path / "out")
    assert (tmp_path / "out" / "4.txt").read_text() == "8"
    with pytest.raises(PluginError, match=r"'broken' of gymnast-counting 1 .* cannot be imported"):
        load_writer("broken")
