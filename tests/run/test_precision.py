"""bf16-mixed is the update's: what is imagined, judged and measured does not change with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small import CommandLine, Models

# A rate that moves no float32 weight: every evaluation is of one set of weights.
STILL = [
    "optimizer.args.learning_rate=1e-30",
    "optimizer.args.warmup_updates=0",
    "loop.iterations=2",
    "evaluation.every=1",
]
CHANCE = ["reward_model={name: random, args: {probability: 0.5}}", "evaluation.temperature=1.6"]


def trials(label: str) -> list[tuple[Any, ...]]:
    content = json.loads(Path(f"run/evaluations/{label}.json").read_text())
    return [(row["task"], row["value"], row["partial"], row["error"]) for row in content["episodes"]]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_evaluations_of_the_same_weights_give_the_same_trials(
    precision: str, gymnast: CommandLine, models: Models, tmp_path: Path
) -> None:
    # In imagination, judged by chance: the draw is a hash of every frame and action, so nothing may differ.
    world = f"evaluation.world={{name: worldgym, args: {{checkpoint: {models.world}}}}}"
    judge = "evaluation.reward_model={name: random, args: {probability: 0.5}}"
    kept = [item for item in models.overrides() if not item.startswith("reward_model")]
    count = ["evaluation.tasks.args.count=12", f"trainer.precision={precision}"]
    assert gymnast("train", "tabletop", *kept, *CHANCE, *STILL, *count, world, judge).code == 0
    before = trials("before")
    assert len(before) == 12 and len({value for _, value, _, _ in before}) == 2
    for label in ("iteration-000001", "iteration-000002", "after"):
        assert trials(label) == before
