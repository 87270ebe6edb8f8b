"""Snapshots come back as they were written, or not at all."""

import errno
import hashlib
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.runs.snapshot import fitting, load_snapshot, save_snapshot

STATE = {"iteration": 3, "weights": torch.arange(6.0).reshape(2, 3), "by_index": {0: [1.5, None], 1: "text"}, "x": 2.0}


@pytest.fixture
def folder(tmp_path):
    """Two snapshots: of iteration 2 and 3."""
    save_snapshot(tmp_path, 2, {**STATE, "iteration": 2}, own={"rank": 0})
    save_snapshot(tmp_path, 3, STATE, own={"rank": 0})
    return tmp_path


def files(folder):
    return sorted(path for path in folder.iterdir() if path.is_file())


def test_a_state_comes_back_whole(folder):
    found = load_snapshot(folder)
    assert found.path.name == "step-000000003"
    assert torch.equal(found.state.pop("weights"), STATE["weights"])
    assert found.state == {key: value for key, value in STATE.items() if key != "weights"}
    assert found.processes == [{"rank": 0}]


def test_tensors_whose_paths_are_alike_stay_apart(tmp_path):
    state = {"a.b": torch.zeros(2), "a": {"b": torch.ones(2)}, "a.b'": torch.full((2,), 2.0)}
    found = load_snapshot(save_snapshot(tmp_path, 1, state).parent).state
    assert torch.equal(found["a.b"], state["a.b"]) and torch.equal(found["a"]["b"], state["a"]["b"])
    assert torch.equal(found["a.b'"], state["a.b'"])


@pytest.mark.parametrize("strange", [{1: 0.5, "total": 2.0}, {True: 1.0}, {0.5: 1.0}, {None: 1}, {"__tensor__": "a"}])
def test_a_dict_that_would_come_back_as_another_is_not_written(tmp_path, strange):
    with pytest.raises(TypeError, match=r"cannot hold part\.0, a dict with the keys .* must be all text"):
        save_snapshot(tmp_path, 1, {"part": [strange]})
    assert load_snapshot(tmp_path) is None


def test_every_flipped_bit_is_noticed_and_the_snapshot_before_is_read(folder, caplog):
    rng = random.Random(0)
    newest = folder / "step-000000003"
    for path in files(newest):
        content = path.read_bytes()
        for _ in range(10):
            bit = rng.randrange(8 * len(content))
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            caplog.clear()
            assert load_snapshot(folder).state["iteration"] == 2, (path.name, bit)
            assert "is damaged" in caplog.text
            assert "Going on from step-000000002" in caplog.text
        path.write_bytes(content)
    assert load_snapshot(folder).state["iteration"] == 3


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "added"])
def test_files_that_are_lost_cut_or_strange_are_noticed(folder, damage):
    newest = folder / "step-000000003"
    for path in files(newest):
        content = path.read_bytes()
        if damage == "missing":
            path.unlink()
        elif damage == "added":
            path.with_name("process-0001.json").write_text("{}")
        else:
            path.write_bytes(b"" if damage == "empty" else content[:-1])
        found = load_snapshot(folder)
        path.write_bytes(content)
        path.with_name("process-0001.json").unlink(missing_ok=True)
        # Without its last line feed the list of checksums still says the same.
        same = damage == "cut" and path.name == "SHA256SUMS"
        assert found.state["iteration"] == (3 if same else 2), path.name


def test_when_all_are_damaged_it_is_one_error_that_names_the_newest(folder):
    for path in folder.glob("step-*/state.json"):
        path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"step-000000003 is damaged: state.json changed .* No other can be read"):
        load_snapshot(folder)


def test_the_checksums_are_those_of_sha256sum(folder):
    newest = folder / "step-000000003"
    for line in (newest / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert digest == hashlib.sha256((newest / name).read_bytes()).hexdigest()


def test_there_may_be_none(folder):
    shutil.rmtree(folder)
    assert load_snapshot(folder) is None


@pytest.mark.parametrize("error", [OSError("no such file"), SafetensorError("damaged"), EOFError("early")])
def test_whatever_taking_a_state_over_raises_is_one_error(error):
    said = f"step-1 does not fit this run: {type(error).__name__}: {error}"
    with pytest.raises(CheckpointError, match=said), fitting(Path("step-1")):
        raise error


def test_a_full_disk_and_our_own_errors_pass_as_they_are():
    for error in (OSError(errno.ENOSPC, "No space left"), ConfigError("another key")):
        with pytest.raises(type(error)) as caught, fitting(Path("step-1")):
            raise error
        assert caught.value is error
