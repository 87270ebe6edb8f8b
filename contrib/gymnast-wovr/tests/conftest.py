"""The plugin as an installed one, checkpoints, and the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gymnast_core import cli
from gymnast_core.plugins.compose import registries
from gymnast_core.plugins.hooks import plugin_manager
from wovr_parts import INSTRUCTIONS, POLICY, WORLD, Brightness, build

from gymnast_wovr import hooks
from gymnast_wovr.co_evolving import CoEvolvingWorld
from gymnast_wovr.first_hit import FirstHit
from gymnast_wovr.keyframe_tasks import KeyframeTasks
from gymnast_wovr.masked_grpo import MaskedGRPO


@pytest.fixture(scope="session", autouse=True)
def plugin() -> None:
    register()


def register() -> None:
    """What pip would install, in this process."""
    known = registries()
    known.world_models.register("co-evolving", CoEvolvingWorld)
    known.reward_models.register("first-hit", FirstHit)
    known.reward_models.register("brightness", Brightness)
    known.optimizers.register("masked-grpo", MaskedGRPO)
    known.datasets.register("keyframe-tasks", KeyframeTasks)
    if not plugin_manager().has_plugin("wovr"):
        plugin_manager().add(hooks, "wovr")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of untrained models: policy/, world/, judge/."""
    folder = tmp_path_factory.mktemp("models")
    build("policies", "openvla-oft", POLICY).save(folder / "policy")
    build("world_models", "worldgym", WORLD).save(folder / "world")
    judge = {"instructions": INSTRUCTIONS, "width": 8, "hidden": 8}
    build("reward_models", "success-classifier", judge).save(folder / "judge")
    return folder


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`gymnast train ARGUMENTS` through the real entry point; a user's error ends it with `SystemExit`."""

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["gymnast", "train", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stop:
            if stop.code not in (0, None):
                raise

    return run
