"""A recording that was killed goes on to the very bytes of one that was not; what it made can be learned from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from collecting import HERE, config, prints

from gymnast_collect import record
from gymnast_collect.command import collect_command
from gymnast_core.cli import cli
from gymnast_core.config import to_yaml
from gymnast_core.errors import ConfigError
from gymnast_core.signals import TERMINATED
from gymnast_episodes import write_lerobot

FAMILIES = [
    {"id": HERE, "name": "a", "count": 3},
    {"id": HERE, "name": "b", "first": 50, "count": 3},
]
NOISY = {"kind": "expert", "noise": {"white": 1.0}}
WANTED = {"environments": FAMILIES, "actor": NOISY, "keep": "successes", "order": "interleaved", "horizon": 12}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, str]:
    """Digests of the uninterrupted recording."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    collect_command(config(folder, **WANTED))
    return prints(folder)


class Killed(BaseException):
    """Stands for the end of the process."""


def killing(honest, after: int, *, before: bool):
    """The function, but the process ends at call number `after`, before or after doing it."""
    calls = []

    def function(*args, **keywords):
        calls.append(1)
        if len(calls) == after and before:
            raise Killed
        found = honest(*args, **keywords)
        if len(calls) == after:
            raise Killed
        return found

    return function


@pytest.mark.parametrize(
    ("where", "name", "after", "before"),
    [
        (write_lerobot, "encode_video", 1, True),
        (write_lerobot, "encode_video", 4, False),  # one camera of an episode is written
        (write_lerobot._LeRobotWriter, "write", 3, False),  # an episode is written, its row is not
        (record.Recorder, "add", 5, False),
        (write_lerobot.LeRobotV3Writer, "finish", 1, True),
        (write_lerobot.LeRobotV3Writer, "finish", 1, False),
        (record, "write_text", 1, False),
        (record, "clean", 1, True),  # the recording has its name already
    ],
)
def test_a_recording_that_ends_anywhere_goes_on_to_the_same_bytes(
    tmp_path, monkeypatch, whole, where, name, after, before
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(where, name, killing(getattr(where, name), after, before=before))
        with pytest.raises(Killed):
            collect_command(config(folder, **WANTED))
    summary = collect_command(config(folder, **WANTED, **{"parallel": 5}), resume=folder)
    assert prints(folder) == whole
    assert (summary["kept"], summary["attempts"]) == (6, len((folder / "attempts.jsonl").read_text().splitlines()))
    assert collect_command(config(folder, **WANTED), resume=folder)["kept"] == 6  # nothing is left to do


def test_sigterm_and_kill_minus_nine(tmp_path, whole):
    folder, file = tmp_path / "run", tmp_path / "config.yaml"
    file.write_text(to_yaml(config(None, **WANTED)))
    assert signalled(signal.SIGTERM, 2, "collect", str(file), f"output={folder}") == TERMINATED
    assert signalled(signal.SIGKILL, 3, "collect", "--resume", str(folder)) == -signal.SIGKILL
    assert len((folder / record.WORK / record.STAGING / record.ATTEMPTS).read_text().splitlines()) == 5
    collect_command(config(folder, **WANTED), resume=folder)
    assert prints(folder) == whole


SIGNALLED = """
import os
from gymnast_collect.record import Recorder
from gymnast_core.cli import main
honest, done = Recorder.add, []

def add(*arguments):
    honest(*arguments)
    done.append(1)
    if len(done) == COUNT:
        os.kill(os.getpid(), SIGNAL)

Recorder.add = add
main()
"""


def signalled(stop: signal.Signals, count: int, *words: str) -> int:
    """Run the command in a process that gets the signal when it has written so many attempts; its exit status."""
    script = SIGNALLED.replace("COUNT", str(count)).replace("SIGNAL", str(int(stop)))
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", script, *words], env=variables, timeout=300).returncode


def test_a_resumed_recording_keeps_what_decides_about_episodes(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(record.Recorder, "add", killing(record.Recorder.add, 2, before=False))
        with pytest.raises(Killed):
            collect_command(config(folder, **WANTED))
    with pytest.raises(ConfigError, match="cannot change horizon: horizon was 12 and would become 13"):
        collect_command(config(folder, **WANTED | {"horizon": 13}), resume=folder)
    with pytest.raises(ConfigError, match=r"holds a recording\. Continue it with gymnast collect --resume "):
        collect_command(config(folder, **WANTED))


def test_a_world_model_is_fitted_to_the_recording(tmp_path):
    def gymnast(*words: str) -> dict:
        done = CliRunner().invoke(cli, words, standalone_mode=False, catch_exceptions=False)
        return json.loads(done.stdout[done.stdout.index("{") : done.stdout.rindex("}") + 1])

    tables = "environments=[{id: gymnast/Tabletop-v0, args: {image_size: 16, horizon: 8}, count: 6}]"
    gymnast("collect", "collect-tabletop", tables, "horizon=8", f"output={tmp_path / 'data'}")
    recording = {"path": str(tmp_path / "data/episodes"), "window": 5}
    small = [f"world_model.args.{key}" for key in ("image_size=[16,16]", "dim=32", "layers=1", "heads=2", "window=4")]
    gymnast(
        "fit", "fit-tabletop-world-model", *small, "episodes=lerobot", "validation=lerobot",
        f"episodes.args={json.dumps(recording)}", f"validation.args={json.dumps(recording)}", "fit.steps=2",
        "fit.batch_size=2", "fit.validation_episodes=2", f"output={tmp_path / 'fitted'}",
    )  # fmt: skip
    assert (tmp_path / "fitted/checkpoint/model.safetensors").is_file()
