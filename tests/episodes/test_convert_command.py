"""The command line of `gymnast convert`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from clips import BRIDGE, episodes_of

from gymnast_core.cli import cli
from gymnast_core.errors import ConfigError, GymnastError

GYMNAST = str(Path(sys.executable).with_name("gymnast"))
SOURCE = ["worldgym-episodes", f"path={BRIDGE}", "instruction=lift the pot", "image_size=[32,32]"]


def invoke(*arguments: str):
    return CliRunner().invoke(cli, ["convert", *arguments])


def test_a_conversion_from_the_command_line(tmp_path):
    out = tmp_path / "out"
    arguments = [*SOURCE, "window=6", "crops=first", "--to", "lerobot-v2.1", "--fps", "5", str(out)]
    done = subprocess.run([GYMNAST, "convert", *arguments], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["episodes"] == 2
    assert re.fullmatch(r"Converting 2/2  [\d.]+ (episodes/s|s/episode)  left 0:00", done.stderr.splitlines()[-1])
    assert [len(episode.view()) for episode in episodes_of("lerobot", path=str(out))] == [6, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SOURCE, "--to", "worldgym"], r"Give a dataset and the folder to write.*gymnast convert DATASET"),
        ([*SOURCE, "--to", "worldgym", "--robot", "brigde", "out"], r"Did you mean 'bridge'"),
        ([*SOURCE, "wnidow=3", "--to", "worldgym", "out"], r"dataset\.args\.wnidow.*Did you mean 'window'"),
        (
            ["lerobot", "dataset.args.path=nowhere", "--to", "worldgym", "out"],
            r"No folder nowhere\. Give the folder of a LeRobot",
        ),
        (["lerobot", "dataset.args.path=nowhere", "--to", "worldgym"], r"Give a dataset and the folder to write"),
        ([*SOURCE, "--to", "wordgym", "out"], r"Did you mean 'worldgym'"),
        (
            ["lerobot", "path=nowhere", "--to", "worldgym", "out"],
            r"No folder nowhere\. Give the folder of a LeRobot.*path=DIR",
        ),
    ],
)
def test_what_cannot_be_run(arguments, message):
    error = invoke(*arguments).exception
    assert isinstance(error, GymnastError)
    with pytest.raises(type(error), match=message):
        raise error


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gymnast_episodes.conversion.convert", interrupted)
    result = invoke(*SOURCE, "--to", "trials", str(tmp_path / "out"))
    assert result.exit_code == 130
    assert "The same command continues" in result.stderr


def test_listing_commands_imports_nothing_heavy():
    code = "import sys, gymnast_episodes.command; assert not {'torch', 'av', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_lists_the_formats_and_an_example():
    text = invoke("--help").output
    for word in ("lerobot-v3", "lerobot-v2.1", "worldgym", "trials", "--robot", "--fps", "--pixel-format"):
        assert word in text
    assert isinstance(invoke("--to", "trials").exception, ConfigError)
