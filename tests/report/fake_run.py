"""A small but realistic run folder, made through the same hooks and files as a real one."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gymnast_core.config import ComponentConfig, EvaluationConfig, LoopConfig, RunConfig, to_yaml
from gymnast_core.interfaces import Parts
from gymnast_core.plugins import events
from gymnast_core.statistics import mean_interval
from gymnast_core.types import Reward, Rollout, Task, one_camera
from gymnast_report import hooks

HOSTILE = '<script>alert("x")</script> & "quotes" </video>'
COLUMNS = (
    "iteration",
    "imagined_success",
    "groups_kept",
    "groups_dropped",
    "approx_kl",
    "entropy",
    "unscored",
)
INSTRUCTIONS = ("push the red block to the left", "lift the green cube", HOSTILE)


def run_config(output: Path, *, iterations: int = 7) -> RunConfig:
    part = ComponentConfig
    return RunConfig(
        world_model=part("worldgym"),
        policy=part("openvla-oft"),
        reward_model=part("success-classifier"),
        optimizer=part("grpo"),
        tasks=part("tabletop", {"split": "train"}),
        evaluation=EvaluationConfig(videos=6),
        loop=LoopConfig(iterations=iterations),
        output=str(output),
    )


def rollout(number: int, *, seed: int = 0, outcome: float | None = None, size: int = 48) -> Rollout:
    """A coloured square that wanders over a table, so that videos have something to compress."""
    generator = torch.Generator().manual_seed(1000 * seed + number)
    horizon = 8
    frames_THWC = torch.full((1 + horizon, size, size, 3), 205, dtype=torch.uint8)
    frames_THWC[:, size // 2 :] = torch.tensor([150, 120, 90], dtype=torch.uint8)
    colour = torch.randint(0, 255, (3,), generator=generator, dtype=torch.uint8)
    x, y = torch.randint(8, size - 12, (2,), generator=generator).tolist()
    for time in range(1 + horizon):
        left = max(0, x - 2 * time) if number % 2 else min(size - 8, x + 2 * time)
        frames_THWC[time, y : y + 8, left : left + 8] = colour
    frames_TVHWC = one_camera(frames_THWC)
    task = Task(f"task-{number:03d}", INSTRUCTIONS[number % len(INSTRUCTIONS)], frames_TVHWC[:1])
    zeros = torch.zeros(2, horizon // 2, 7)
    outcome_S = None if outcome is None else torch.full((horizon,), outcome)
    return Rollout(task, number, frames_TVHWC, zeros, zeros, 1.0, outcome_S=outcome_S)


def rewards(values: list[float | None]) -> list[Reward]:
    return [
        Reward(None, error="The judge did not answer: 503")
        if value is None
        else Reward(
            value,
            partial=min(max(0.25 + value / 2, 0.0), 1.0),
            rationale=f"The gripper {'reached' if value else 'missed'} it.",
        )
        for value in values
    ]


class Judge:
    """Stands for a reward model of which only the kind matters."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def parts(kind: str) -> Any:
    return Parts(reward_model=Judge(kind))  # type: ignore[arg-type]


def evaluate(config: RunConfig, label: str, iteration: int, values: list[float | None], kind: str = "success") -> None:
    """What is done after an evaluation: the JSON file, then the hook."""
    path = Path(str(config.output))
    rollouts = [rollout(i, seed=iteration, outcome=value or 0.0) for i, value in enumerate(values)]
    scored = [value for value in values if value is not None]
    content: dict[str, Any] = {
        "label": label,
        "iteration": iteration,
        "world": "gymnasium",
        "reward_model": "environment",
        "temperature": 0.0,
        "horizon": 8,
        "seed": 3,
        "n": len(scored),
        "unscored": len(values) - len(scored),
        "rate": sum(scored) / len(scored) if scored else float("nan"),
        "interval": mean_interval(scored, kind),
        "reward_kind": kind,
        "seconds": 1.5,
        "episodes": [
            {"task": r.task.id, "instruction": r.task.instruction, "value": v, "partial": None, "error": None}
            for r, v in zip(rollouts, values, strict=True)
        ],
    }
    write_json(path / "evaluations" / f"{label}.json", content)
    hooks.gymnast_evaluation_done(
        events.EvaluationDone(config, path, iteration, parts(kind), label, "gymnasium", rollouts, rewards(values))
    )


def train(config: RunConfig, step: int) -> None:
    """What the core does in one iteration, with one unscored rollout."""
    values: list[float | None] = [1.0, 0.0, None, 1.0, 0.0, 0.0, 1.0]
    scored(config, [rollout(i, seed=10 + step) for i in range(len(values))], values, step)


def scored(
    config: RunConfig, rollouts: list[Rollout], values: list[float | None], step: int, kind: str = "success"
) -> None:
    """Rollouts of the iteration after `step` were judged."""
    folder = Path(str(config.output))
    hooks.gymnast_rewards_scored(events.RewardsScored(config, folder, step, parts(kind), rollouts, rewards(values)))


def write_metrics(path: Path, iterations: int) -> None:
    with (path / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "iteration",
                "imagined_success",
                "groups_kept",
                "groups_dropped",
                "approx_kl",
                "entropy",
                "unscored",
            ]
        )
        for i in range(1, iterations + 1):
            kl = "" if i == 3 else 0.004 + 0.002 * (i % 3)
            writer.writerow([i, round(0.3 + 0.05 * i, 3), 5 + i % 3, 3 - i % 3, kl, 2.1 - 0.04 * i, 1])


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def make_run(path: Path, *, iterations: int = 7) -> RunConfig:
    """A finished run: 33.3 % before, 75.0 % after, one task unscored after."""
    config = run_config(path, iterations=iterations)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(to_yaml(config))
    write_json(
        path / "versions.json",
        {"python": "3.11.9", "packages": {"torch": "2.13.0"}, "command": ["gymnast", "train"]},
    )
    evaluate(config, "before", 0, [1.0, 0.0, 0.0] * 3)
    for step in range(iterations):
        train(config, step)
    write_metrics(path, iterations)
    evaluate(config, "iteration-000005", 5, [1.0, 0.0, 1.0] * 3)
    evaluate(config, "after", iterations, [1.0, 1.0, 0.0, None, 1.0, 1.0, 1.0, 0.0, 1.0])
    summary = {
        "difference": {"mean": 0.375, "interval": [0.0625, 0.6875], "n": 8, "method": "paired BCa bootstrap"},
        "seconds": 3725,
    }
    write_json(path / "summary.json", summary)
    hooks.gymnast_run_done(events.RunDone(config, path, iterations, summary=summary))
    return config


def groups(path: Path) -> None:
    """The record of a last iteration that learned from one group of four, filmed, and dropped another; the third
    rollout could not be judged, the fourth succeeded after three actions."""
    from gymnast_core.learning import Advantages, Judged, Learned
    from gymnast_report.group_view import film_group
    from gymnast_report.groups import GroupRecord
    from gymnast_report.report import build_report

    learned = [replace(rollout(i, seed=77), group=3) for i in (0, 3, 6, 9)]
    learned = [replace(one, task=learned[0].task) for one in learned]
    dropped = [replace(rollout(i, seed=78), group=4) for i in (1, 4)]
    values = rewards([1.0, 0.0, None, 1.0])
    values[3] = replace(values[3], finish_step=3)
    record = GroupRecord(path)
    record.judged(learned + dropped, values + rewards([0.0, 0.0]))
    judged = Judged(tuple(learned), tuple(values), 4)
    given = Learned(judged, Advantages.of_trajectories(torch.tensor([[1.5, -1.5, 0.0, 0.25]]), judged))
    row = record.done(7, given)
    assert row is not None
    film_group(path / "videos", row, given)
    build_report(path)
