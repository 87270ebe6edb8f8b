"""The folder of a run: who owns it, what stands in it, what a resume may change, and what a disk refuses."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from gymnast_core.config import ComponentConfig, LoopConfig, RunConfig, load_config
from gymnast_core.errors import ConfigError, DataError, StorageError
from gymnast_core.plugins.registry import registries
from gymnast_core.plugins.resuming import free_arguments
from gymnast_core.runs import atomic, folder
from gymnast_core.runs.atomic import append, atomic_directory, remove_leftovers, storing, write_json, write_text
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.ending import CRASHED, INTERRUPTED, Ending, read_ending
from gymnast_core.runs.folder import config_changes, read_resumes, refuse_changes, run_folder
from gymnast_core.runs.snapshot import load_snapshot, save_snapshot
from gymnast_core.signals import Terminated

PART = ComponentConfig("a", {"depth": 2, "device": "cpu"})
CONFIG = RunConfig(PART, PART, PART, PART, PART, loop=LoopConfig(iterations=3))
HOLD = """
import sys
from pathlib import Path
from gymnast_core.config import ComponentConfig, RunConfig
from gymnast_core.errors import ConfigError
from gymnast_core.runs.folder import run_folder
part = ComponentConfig("a")
config = RunConfig(part, part, part, part, part, output=sys.argv[1])
resume = Path(sys.argv[1]) if sys.argv[2] == "resume" else None
try:
    with run_folder(config, "a", resume):
        print("held", flush=True)
        if sys.argv[3] == "wait":
            sys.stdin.readline()
except ConfigError as error:
    print(error)
"""


def holding(path: Path, how: str, wait: str = "wait") -> subprocess.Popen[str]:
    """Another process that works in a folder until it is told to end."""
    command = [sys.executable, "-c", HOLD, str(path), how, wait]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def start(path: Path, config: RunConfig = CONFIG) -> RunConfig:
    with run_folder(replace(config, output=str(path)), "a") as (found, _):
        return found


def finish_a_step(path: Path) -> None:
    save_snapshot(path / "snapshots", 1, {"iteration": 1})


def test_a_new_folder_begins_with_its_config(tmp_path: Path) -> None:
    config = start(tmp_path / "deep" / "run")
    assert config.output == str(tmp_path / "deep" / "run")
    assert load_config(RunConfig, f"{config.output}/config.yaml") == config


@pytest.mark.parametrize("done", ["snapshots/step-000000001", "metrics.csv", "summary.json", "checkpoint"])
def test_a_folder_that_holds_a_run_is_taken(tmp_path: Path, done: str) -> None:
    start(tmp_path)
    (tmp_path / done).mkdir(parents=True)
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(
        ConfigError, match=rf"already holds a run. Continue it with --resume {re.escape(str(tmp_path))}"
    ):
        start(tmp_path, replace(CONFIG, seed=9))
    assert (tmp_path / "config.yaml").read_text() == before


def test_a_start_that_failed_stands_in_nobodys_way(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="a checkpoint is missing"),
        run_folder(replace(CONFIG, output=str(tmp_path)), "a"),
    ):
        raise RuntimeError("a checkpoint is missing")
    again = replace(CONFIG, seed=9)
    assert start(tmp_path, again).seed == 9
    assert load_config(RunConfig, str(tmp_path / "config.yaml")).seed == 9


def test_of_two_starts_the_second_is_refused_and_a_killed_one_is_forgotten(tmp_path: Path) -> None:
    first = holding(tmp_path, "start")
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=r"Another process works in .*output="):
        start(tmp_path)
    first.kill()
    first.wait()
    start(tmp_path)


def test_of_two_resumes_the_second_is_refused(tmp_path: Path) -> None:
    start(tmp_path, RunConfig(*[ComponentConfig("a")] * 5))
    finish_a_step(tmp_path)
    first = holding(tmp_path, "resume")
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    second, _ = holding(tmp_path, "resume", "end").communicate(timeout=60)
    assert second.startswith(f"Another process works in {tmp_path}.")
    assert first.communicate("\n", timeout=60)[0] == ""
    third, _ = holding(tmp_path, "resume", "end").communicate(timeout=60)
    assert third == "held\n"


def test_folders_of_our_own_naming_differ_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noon(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Noon:
            return cls(2026, 1, 2, 12, 0, 0, tzinfo=tz)

    monkeypatch.setattr(folder, "datetime", Noon)
    monkeypatch.chdir(tmp_path)
    names = []
    for _ in range(3):
        with run_folder(CONFIG, "grpo") as (config, path):
            names.append(str(path))
            assert config.output == str(path)
    assert names == [f"runs/grpo-20260102-120000{end}" for end in ("", "-2", "-3")]


# ---------------------------------------------------------------- resumes


def test_what_a_resume_may_not_change_is_named() -> None:
    after = replace(
        CONFIG,
        policy=ComponentConfig("b", {"depth": 3, "device": "cuda"}),
        loop=replace(CONFIG.loop, horizon=8, iterations=9),
    )
    with pytest.raises(ConfigError) as caught:
        refuse_changes(CONFIG, after, ("policy", "loop.horizon"), ("policy.args.device",))
    said = str(caught.value)
    assert said.startswith(
        "A resumed run cannot change policy.name, policy.args.depth, loop.horizon: policy.name was 'a'"
    )
    assert "policy.args.depth was 2 and would become 3" in said and "loop.horizon was 40 and would become 8" in said
    assert "device" not in said and "iterations" not in said
    refuse_changes(CONFIG, after, ("world_model", "loop.temperature"))
    # What begins alike is another key.
    refuse_changes(CONFIG, replace(CONFIG, checkpoint_every=2), ("checkpoint",))


def test_one_place_in_two_spellings_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/policy").mkdir(parents=True)

    def at(path: str) -> RunConfig:
        return replace(CONFIG, policy=ComponentConfig("a", {"checkpoint": path}))

    for path in (str(tmp_path / "runs/policy"), "./runs/policy", "runs/../runs/policy/"):
        refuse_changes(at("runs/policy"), at(path), ("policy",))
        refuse_changes(at(path), at("runs/policy"), ("policy",))
    for path in ("runs/other", "policy", str(tmp_path / "runs"), "a/b " * 2000, "a/\0b"):
        with pytest.raises(ConfigError, match=r"policy\.args\.checkpoint"):
            refuse_changes(at("runs/policy"), at(path), ("policy",))


def test_money_and_speed_of_a_judge_may_change_wherever_it_stands() -> None:
    """None of them changes a verdict; what does is still refused, also in a judge inside of another."""

    def run(**changes: Any) -> RunConfig:
        gpt = {"name": "gpt-4o", "args": {"votes": 3, "max_usd": 5.0, **changes}}
        members = {"name": "ensemble", "args": {"judges": [{"name": "environment", "args": {}}, gpt]}}
        return replace(CONFIG, reward_model=ComponentConfig("twice", {"judge": members, "rounds": 1}))

    free = free_arguments(run())
    refuse_changes(run(), run(max_usd=20.0, concurrency=4, account="mine"), ("reward_model",), free)
    for change in ({"votes": 5}, {"model": "gpt-5"}, {"base_url": "http://localhost:1/v1"}):
        with pytest.raises(ConfigError, match=rf"reward_model.args.judge.args.judges.1.args.{next(iter(change))}"):
            refuse_changes(run(), run(**change), ("reward_model",), free)
    assert "policy.args.device" in free_arguments(replace(CONFIG, policy=ComponentConfig("openvla-oft")))
    # Also in sections that hold the config of another command.
    inside = {"evaluate": {"reward_model": {"name": "gpt-4o", "args": {}}, "episodes": 5}}
    found = set(free_arguments(replace(CONFIG, hooks=inside))) - set(free_arguments(CONFIG))
    assert "hooks.evaluate.reward_model.args.max_usd" in found
    assert all(key.startswith("hooks.evaluate.reward_model.args.") for key in found)


def test_what_is_free_is_asked_of_the_kind_that_stands_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two plugins of one name and of two kinds: an argument that one of them computes with is not set free by the
    other, where the key tells which is meant and where it does not."""

    class Other:
        free_on_resume = ("device", "count")

        @dataclass(frozen=True)
        class Config:
            seed: int = 0
            count: int = 1

    known = registries()
    monkeypatch.setattr(known.reward_models.load("random"), "free_on_resume", ("device", "seed"))
    monkeypatch.setattr(known.datasets, "names", lambda: ["random"])
    monkeypatch.setattr(known.datasets, "load", lambda name: Other)
    config = replace(
        CONFIG, reward_model=ComponentConfig("random"), tasks=ComponentConfig("random"),
        hooks={"mine": {"odd": {"name": "random", "args": {}}}},
    )  # fmt: skip
    found = {key for key in free_arguments(config) if not key.endswith(".device")}
    assert found == {"reward_model.args.seed", "tasks.args.count", "hooks.mine.odd.args.count"}


def test_what_to_type_next_can_be_typed() -> None:
    assert resume_command("train", Path("my runs/it's")) == """gymnast train --resume 'my runs/it'"'"'s'"""
    assert resume_command("fit", "runs/a") == "gymnast fit --resume runs/a"


def test_a_resume_is_recorded_and_taken_over(tmp_path: Path) -> None:
    started = start(tmp_path)
    finish_a_step(tmp_path)
    assert read_resumes(tmp_path) == []
    with run_folder(started, "a", tmp_path):
        pass
    longer = replace(started, loop=replace(started.loop, iterations=5))
    with run_folder(longer, "a", tmp_path) as (config, path):
        assert (config.loop.iterations, path) == (5, tmp_path)
    first, second = read_resumes(tmp_path)
    assert first["changes"] == {} and second["changes"] == {"loop.iterations": [3, 5]}
    assert datetime.fromisoformat(second["time"]).tzinfo is not None
    assert load_config(RunConfig, str(tmp_path / "config.yaml")).loop.iterations == 5
    assert config_changes(started, replace(longer, output="elsewhere")) == {"loop.iterations": (3, 5)}


def test_a_damaged_record_of_resumes_is_one_error(tmp_path: Path) -> None:
    start(tmp_path)
    (tmp_path / "resumed.json").write_text('[{"time": 1}]')
    with pytest.raises(DataError, match=r"resumed.json: time is 1.*Delete that file"):
        read_resumes(tmp_path)


def test_what_a_kill_left_of_a_snapshot_is_removed_by_the_resume(tmp_path: Path) -> None:
    config = start(tmp_path)
    finish_a_step(tmp_path)
    for name in (".step-000000002.4711.tmp", ".step-000000001.4711.old"):
        (tmp_path / "snapshots" / name).mkdir()
        (tmp_path / "snapshots" / name / "state.json").write_text("{")
    with run_folder(config, "a", tmp_path):
        assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["step-000000001"]
    found = load_snapshot(tmp_path / "snapshots")
    assert found is not None and found.state == {"iteration": 1}


# ---------------------------------------------------------------- what a disk refuses


def test_a_write_that_fails_is_one_error_with_the_room_that_is_left(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    said = r"x.json cannot be written: No space left on device. \d+ MB are free there"
    with pytest.raises(StorageError, match=said), storing(tmp_path / "deep" / "x.json"):
        raise full
    with pytest.raises(StorageError, match="cannot be written: I/O error"), storing(tmp_path):
        raise SafetensorError("I/O error: No space left on device")
    with pytest.raises(ValueError, match="something else"), storing(tmp_path):
        raise ValueError("something else")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_what_may_not_be_written_is_named_with_what_to_do(tmp_path: Path, number: int) -> None:
    policy = tmp_path / "run" / "policy"

    def said(*names: str) -> str:
        with pytest.raises(StorageError) as caught, storing(policy):
            raise OSError(number, os.strerror(number), *names)
        return str(caught.value).removeprefix(f"{policy} cannot be written")

    why, ask = f": {os.strerror(number)}. ", "Let this user write {}, or choose another folder."
    # The nearest folder that there is.
    assert said() == why + ask.format(tmp_path)
    policy.mkdir(parents=True)
    assert said(str(policy / "config.json")) == f" ({policy}/config.json)" + why + ask.format(policy)
    # A temporary name beside it tells nobody anything, nor does what a file was called before.
    assert said(str(policy.parent / ".policy.1.tmp")) == why + ask.format(policy.parent)
    moved = said(str(policy / "a.tmp"), None, str(policy / "a"))  # type: ignore[arg-type]
    assert moved == f" ({policy}/a)" + why + ask.format(policy)
    (policy / "rows.csv").write_text("")
    assert said(str(policy / "rows.csv")).endswith(ask.format(policy / "rows.csv"))


def test_rows_are_added_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tmp_path / "deep" / "rows.csv"
    append(rows, b"1\n")
    append(rows, b"2\n")

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match=r"rows.csv cannot be written: No space left on device. \d+ MB are free"):
            append(rows, b"half a r")
    append(rows, b"3\n")
    assert rows.read_text() == "1\n2\n3\n"


APPEND = """
import sys
from pathlib import Path
from gymnast_core.errors import StorageError
from gymnast_core.runs.atomic import append
rows = Path(sys.argv[1]) / "rows"
append(rows, b"1" * 40_000)
try:
    append(rows, b"2" * 40_000)
except StorageError as error:
    print(error)
print(rows.stat().st_size)
"""


def test_rows_for_which_a_disk_has_half_the_room(tmp_path: Path) -> None:
    refused, size = on_a_disk_of_its_own(tmp_path, "size=60k", APPEND).splitlines()
    assert "rows cannot be written: No space left" in refused
    assert size == "40000"


def test_a_place_that_is_no_folder_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written: "):
        start(tmp_path / "file" / "run")
    with pytest.raises(StorageError, match="cannot be written: "):
        save_snapshot(tmp_path / "file", 1, {})


def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "report.html", "whole")
    save_snapshot(tmp_path / "snapshots", 1, {"iteration": 1})

    def refuse(file: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic, "flush", refuse)
    with pytest.raises(StorageError, match="No space left"):
        write_text(tmp_path / "report.html", "more")
    with pytest.raises(StorageError, match=r"step-000000002 cannot be written: No space left"):
        save_snapshot(tmp_path / "snapshots", 2, {"weight": torch.zeros(3)})
    assert (tmp_path / "report.html").read_text() == "whole"
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["step-000000001"]
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "snapshots"}


FILL_UP = """
import sys, torch
from pathlib import Path
from gymnast_core.errors import StorageError
from gymnast_core.runs.snapshot import load_snapshot, save_snapshot
from gymnast_core.signals import Terminated
folder = Path(sys.argv[1])
save_snapshot(folder, 1, {"weight": torch.zeros(1000)})
try:
    save_snapshot(folder, 2, {"weight": torch.zeros(1_000_000)})
except StorageError as error:
    print(error)
print(sorted(path.name for path in folder.iterdir()), load_snapshot(folder).path.name)
"""


def on_a_disk_of_its_own(tmp_path: Path, options: str, script: str, *arguments: str) -> str:
    """What a script prints that works in `disk`, a small disk that only its processes see."""
    (tmp_path / "script.py").write_text(script)
    (tmp_path / "disk").mkdir()
    inside = f"mount -t tmpfs -o {options} none disk && {sys.executable} script.py disk {' '.join(arguments)}"
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", inside]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"no disks can be made here: {error}")
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no disks can be made here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    said = on_a_disk_of_its_own(tmp_path, "size=1m", FILL_UP)
    assert re.search(r"step-000000002.* cannot be written: .*No space left", said)
    assert "['step-000000001'] step-000000001" in said


@pytest.mark.parametrize("how", ["start", "resume"])
def test_a_folder_that_is_read_only(tmp_path: Path, how: str) -> None:
    script = HOLD.replace("import ConfigError", "import StorageError").replace(
        "except ConfigError", "except StorageError"
    )
    said = on_a_disk_of_its_own(tmp_path, "ro", script, how, "end")
    assert "disk cannot be written (disk/.lock): Read-only file system. Let this user write " in said


def test_folders_and_files_are_whole_or_as_before(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    for text in ("first", "second"):
        with atomic_directory(target) as temporary:
            (temporary / "weights").write_text(text)
        assert (target / "weights").read_text() == text
    with pytest.raises(KeyError), atomic_directory(target) as temporary:
        (temporary / "weights").write_text("half")
        raise KeyError
    assert (target / "weights").read_text() == "second"
    write_json(tmp_path / "deep" / "numbers.json", {"a": 1})
    assert json.loads((tmp_path / "deep" / "numbers.json").read_text()) == {"a": 1}
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "deep"}


def test_leftovers_are_files_and_folders_of_killed_processes_alone(tmp_path: Path) -> None:
    for name in (".report.html.12.tmp", "report.html", ".hidden", ".lock"):
        (tmp_path / name).write_text("")
    (tmp_path / ".policy.12.old").mkdir()
    (tmp_path / ".policy.12.old" / "weights").write_text("")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", ".hidden", ".lock"}


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (KeyboardInterrupt(), Ending(INTERRUPTED, "Ctrl-C")),
        (Terminated(), Ending(INTERRUPTED, "SIGTERM")),
        (DataError("No clips in here."), Ending(CRASHED, "No clips in here.")),
        (ZeroDivisionError("division by zero"), Ending(CRASHED, "ZeroDivisionError: division by zero")),
        (SystemExit(7), Ending(CRASHED, "Another process of it failed, with status 7.")),
    ],
)
def test_why_a_command_stopped_stands_in_its_folder(tmp_path: Path, error: BaseException, ending: Ending) -> None:
    def work(fails: bool, resume: Path | None = None) -> None:
        with run_folder(replace(CONFIG, output=str(tmp_path / "run")), "a", resume) as (_, path):
            assert read_ending(path) is None  # until it ends, nobody knows
            if fails:
                raise error

    with pytest.raises(type(error)):
        work(fails=True)
    assert read_ending(tmp_path / "run") == ending
    work(fails=False, resume=tmp_path / "run")
    assert read_ending(tmp_path / "run") is None


def test_a_command_that_was_turned_away_says_nothing_of_a_run_that_goes_on(tmp_path: Path) -> None:
    other = holding(tmp_path / "run", "start")
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match="Another process works in"):
        start(tmp_path / "run")
    assert read_ending(tmp_path / "run") is None
    other.communicate("\n")


def test_a_disk_that_refuses_does_not_hide_why_a_command_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, value: Any) -> None:
        raise StorageError(f"{path} cannot be written: No space left on device.")

    monkeypatch.setattr("gymnast_core.runs.ending.write_json", full)
    with (
        pytest.raises(DataError, match="No clips"),
        run_folder(replace(CONFIG, output=str(tmp_path / "run")), "a"),
    ):
        raise DataError("No clips in here.")
    assert "No space left on device" in caplog.text


def test_a_damaged_ending_is_told(tmp_path: Path) -> None:
    (tmp_path / "ended.json").write_text('{"name": "bored", "error": ""}')
    with pytest.raises(DataError, match=r"ended\.json: name is 'bored'; it is interrupted or crashed. Delete"):
        read_ending(tmp_path)
