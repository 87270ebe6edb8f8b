"""The package's presets: every key is one that is known, and what RL in imagination uses is there."""

from __future__ import annotations

from pathlib import Path

import gymnast
import pytest
import yaml
from click.testing import CliRunner
from gymnast_core.cli import cli
from gymnast_core.config import RunConfig, load_config
from gymnast_core.config.presets import presets

NAMES = sorted(preset.name for preset in presets() if preset.distribution == "gymnast-metaworld")


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_resolved(name: str) -> None:
    done = CliRunner().invoke(cli, ["show", "preset", name, "--resolved"], catch_exceptions=False)
    assert done.exit_code == 0 and "kind" in yaml.safe_load(done.output)


def test_there_are_presets() -> None:
    assert {"metaworld", "metaworld-judge", "metaworld-judge-rounds", "metaworld-world-model"} <= set(NAMES)


def test_the_shipped_judge_gives_its_probability_as_the_reward() -> None:
    config = load_config(RunConfig, "metaworld")
    judge = gymnast.reward_model(config.reward_model.name, **config.reward_model.args)
    trained = [family["name"] for family in config.tasks.args["environments"]]
    instructions = {
        "door-close": "close the door",
        "window-close": "close the window",
        "drawer-open": "open the drawer",
    }
    assert set(trained) == set(instructions)
    assert set(instructions.values()) <= set(judge.judge.config.instructions)
    assert judge.config.share == 1.0 and Path(judge.judge.config.checkpoint).is_dir()
