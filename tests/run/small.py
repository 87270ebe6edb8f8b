"""The command line in this process, and models small enough to build from scratch in every test run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gymnast_core import cli
from gymnast_core.config.typed import typed
from gymnast_core.plugins.compose import registries

COLOURS, DIRECTIONS = ("red", "green", "blue", "yellow"), ("left", "right", "top", "bottom")
INSTRUCTIONS = [f"push the {colour} block to the {side}" for colour in COLOURS for side in DIRECTIONS]
TOWER = {"patch_size": 16, "width": 16, "depth": 2, "heads": 2}
SIZES = {
    "image_size": 32,
    "dino": TOWER,
    "siglip": TOWER,
    "llm_width": 32,
    "llm_layers": 1,
    "llm_heads": 2,
    "llm_intermediate": 32,
    "n_action_bins": 16,
    "tokenizer_corpus": INSTRUCTIONS[:1],
}
TWO_ACTIONS = {"action_low": [-0.02, -0.02], "action_high": [0.02, 0.02]}
THREE_ACTIONS = {"action_low": [-1.0, -1.0, -1.0], "action_high": [1.0, 1.0, 1.0]}
WORLD = {"dim": 32, "layers": 1, "heads": 2, "patch_size": 16, "action_dim": 3, "robot_action_dim": 2, "window": 6}


def policy_args(**architecture: Any) -> dict[str, Any]:
    return {"chunk_length": 2, "unnorm_key": "tabletop", "architecture": {**SIZES, **TWO_ACTIONS, **architecture}}


def build(kind: str, name: str, args: dict[str, Any]) -> Any:
    cls = getattr(registries(), kind).load(name)
    return cls(typed(cls.Config, args))


@dataclass(frozen=True)
class Models:
    """Checkpoint folders of untrained models, to be copied before they are damaged."""

    policy: Path
    three_actions: Path
    """A policy whose actions have three components."""
    world: Path
    judge: Path

    def overrides(self, **other: Path) -> list[str]:
        """What points the tabletop preset at these models, or at `other` ones, and makes it tiny."""
        paths = {**vars(self), **other}
        return [
            f"world_model.args.checkpoint={paths['world']}",
            f"policy.args.checkpoint={paths['policy']}",
            "policy.args.chunk_length=2",
            "policy.args.dtype=float32",
            f"reward_model.args.checkpoint={paths['judge']}",
            *SMALL_RUN,
        ]


SMALL_RUN = [
    "optimizer.args.group_size=2",
    "loop.iterations=1",
    "loop.tasks_per_iteration=2",
    "loop.horizon=4",
    "tasks.args.count=4",
    "tasks.args.horizon=4",
    "evaluation.tasks.args.count=2",
    "evaluation.tasks.args.horizon=4",
    "output=run",
]


def save_models(folder: Path) -> Models:
    models = Models(folder / "policy", folder / "three", folder / "world", folder / "judge")
    build("policies", "openvla-oft", policy_args()).save(models.policy)
    build("policies", "openvla-oft", policy_args(**THREE_ACTIONS)).save(models.three_actions)
    build("world_models", "worldgym", WORLD).save(models.world)
    build("reward_models", "success-classifier", {"instructions": INSTRUCTIONS, "width": 8, "hidden": 8}).save(
        models.judge
    )
    return models


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


class CommandLine:
    """`gymnast ARGUMENTS` through the real entry point, without the second that a new process takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["gymnast", *map(str, arguments)])
        self._capsys.readouterr()
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        written = self._capsys.readouterr()
        return Done(code or 0, written.out, written.err)

    def error(self, *arguments: str) -> str:
        """The one message of a command that must end in a user's error."""
        done = self(*arguments)
        assert done.code == 2, f"exit code {done.code}\n{done.out}\n{done.err}"
        assert "Traceback" not in done.err
        lines = [line for line in done.err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, done.err
        return done.err[done.err.index("Error: ") :]
