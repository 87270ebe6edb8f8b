"""What the tabletop benchmarks share: building the shipped parts, replaying rollouts in simulation, naming failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from gymnast_core.config import ComponentConfig, RunConfig, load_config
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Rollout
from gymnast_tabletop.instructions import (
    MAX_LATERAL_RATIO,
    MAX_OTHER_DISPLACEMENT,
    MIN_DISPLACEMENT,
    block_index,
    parse,
)

MOVED = 0.01
"""Metres from which a block counts as moved."""


def preset(*overrides: str) -> RunConfig:
    """The shipped preset `tabletop` with overrides."""
    return load_config(RunConfig, "tabletop", list(overrides))


def build(kind: str, part: ComponentConfig) -> Any:
    """A component of the registry `kind`, e.g. "policies"."""
    return getattr(registries(), kind).build(part.name, part.args)


def tasks_of(split: str, count: int, first: int = 0, pairs: str = "training") -> Any:
    args = {"split": split, "count": count, "first": first, "image_size": 32, "pairs": pairs}
    return build("datasets", ComponentConfig("tabletop", args)).tasks()


def end_states(rollouts: Sequence[Rollout]) -> list[tuple[tuple[str, ...], np.ndarray, np.ndarray]]:
    """Colours, first and last simulator state of each rollout's actions, replayed from its task's seed."""
    environments: dict[str, Any] = {}
    found = []
    for rollout in rollouts:
        task = rollout.task
        begin = task.start
        assert begin is not None
        key = str(sorted(begin.args.items()))
        if key not in environments:
            environments[key] = gymnasium.make(begin.id, **begin.args).unwrapped
        environment = environments[key]
        environment.reset(seed=begin.seed, options=dict(begin.options))
        start = environment.scene.state
        for action in rollout.actions_NLA.flatten(0, 1).numpy():
            environment.step(action)
        found.append((environment.scene.colours, np.array(start), np.array(environment.state)))
    return found


def outcome_name(instruction: str, colours: Sequence[str], start: np.ndarray, end: np.ndarray) -> str:
    """What happened: success, or the first reason for its absence."""
    goal = parse(instruction)
    named = block_index(goal, colours)
    moved = (end[2:] - start[2:]).reshape(len(colours), 3)[:, :2]
    distance = np.linalg.norm(moved, axis=-1)
    along = float(moved[named] @ goal.unit)
    lateral = float(abs(moved[named] @ np.array([-goal.unit[1], goal.unit[0]])))
    if np.delete(distance, named).max() >= MAX_OTHER_DISPLACEMENT:
        return "other block disturbed"
    if distance[named] < MOVED:
        return "untouched"
    if lateral >= MAX_LATERAL_RATIO * max(along, 0.0):
        return "wrong direction"
    return "success" if along > MIN_DISPLACEMENT else "too short"


def breakdown(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Share of each outcome name, plus `named_moved` and `any_moved`: the share of episodes in which the named block,
    or any block, was moved by more than a centimetre (their ratio says how well the policy grounds colours)."""
    names: Counter[str] = Counter()
    named_first = touched = 0
    for rollout, (colours, start, end) in zip(rollouts, end_states(rollouts), strict=True):
        names[outcome_name(rollout.task.instruction, colours, start, end)] += 1
        distance = np.linalg.norm((end[2:] - start[2:]).reshape(len(colours), 3)[:, :2], axis=-1)
        named = block_index(parse(rollout.task.instruction), colours)
        if distance.max() > MOVED:
            touched += 1
            named_first += int(distance.argmax() == named)
    shares = {name: count / len(rollouts) for name, count in sorted(names.items())}
    return shares | {"any_moved": touched / len(rollouts), "named_moved_most": named_first / max(touched, 1)}


def check_demonstrations(folder: Path = Path("data/slow-demos")) -> None:
    """Raises `SystemExit` unless the demonstrations of iter-sft were recorded, with the command that does it."""
    if not (folder / "meta.json").exists():
        raise SystemExit(
            f"iter-sft needs demonstrations in {folder}. Record them:\n  python -m gymnast_tabletop.record "
            "--image-size 32 --actions 20 --behaviour slow-demonstrations --episodes 6000 --split training --seed 2 "
            f"--out {folder}"
        )


def with_output(config: RunConfig, path: str) -> RunConfig:
    return replace(config, output=path)
