"""Which runs `gymnast view` compares: those that measured one thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gymnast_core.runs.results import MeasuredWith, read_run
from gymnast_report.compare import context

EVALUATION: dict[str, Any] = {
    "world": {"name": "worldgym", "args": {"checkpoint": "runs/world", "device": "cpu"}},
    "reward_model": {"name": "openai-compatible", "args": {"model": "one"}},
    "tasks": {"name": "episode-starts", "args": {"path": "data/robot"}},
}


def run(folder: Path, rate: float, section: dict[str, Any], measured_with: dict[str, Any] | None = None) -> Path:
    """A run whose only evaluation succeeded in that share of 40 tasks; every recording calls its episodes alike."""
    (folder / "evaluations").mkdir(parents=True)
    (folder / "config.yaml").write_text("kind: train\n" + yaml.safe_dump({"evaluation": section}, sort_keys=False))
    episodes = [
        {"task": f"episodes/{i:06d}", "instruction": "x", "value": float(i < 40 * rate), "partial": None, "error": None}
        for i in range(40)
    ]
    content: dict[str, Any] = {
        "label": "after", "iteration": 1, "world": "worldgym", "reward_model": "openai-compatible", "rate": rate,
        "interval": [0.0, 1.0], "n": 40, "unscored": 0, "episodes": episodes,
    }  # fmt: skip
    content |= {} if measured_with is None else {"measured_with": measured_with}
    (folder / "evaluations/after.json").write_text(json.dumps(content))
    return folder


def changed(key: str, **arguments: Any) -> dict[str, Any]:
    part = EVALUATION[key]
    return EVALUATION | {key: {"name": part["name"], "args": part["args"] | arguments}}


def compared(first: Path, second: Path) -> dict[str, Any]:
    return context({"first": read_run(first), "second": read_run(second)})


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (changed("world", checkpoint="runs/new"),
         "another world: evaluation.world.args.checkpoint is runs/new instead of runs/world"),
        (changed("reward_model", model="two"),
         "another judge: evaluation.reward_model.args.model is two instead of one"),
        (changed("reward_model", frames=4),
         "another judge: evaluation.reward_model.args.frames is 4 instead of not given"),
        (changed("tasks", path="data/other"),
         "other tasks: evaluation.tasks.args.path is data/other instead of data/robot"),
        (EVALUATION | {"tasks": {"name": "tabletop"}},
         "other tasks: evaluation.tasks.name is tabletop instead of episode-starts; evaluation.tasks.args.path is not "
         "given instead of data/robot"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("noted", [True, False])
def test_names_alone_do_not_make_runs_comparable(
    tmp_path: Path, other: dict[str, Any], reason: str, noted: bool
) -> None:
    """Whether the evaluations say what they were made with, or, as earlier ones, leave that to the config."""
    notes = [{"parts": section, "free": []} if noted else None for section in (EVALUATION, other)]
    first = run(tmp_path / "first", 0.2, {} if noted else EVALUATION, notes[0])
    second = run(tmp_path / "second", 0.8, {} if noted else other, notes[1])
    found = compared(first, second)
    assert (found["paired"], found["headline"]) == ([], "Nothing was measured on the same tasks")
    assert [one.reason for one in found["unpaired"]] == [reason]


def test_runs_of_one_measurement_are_compared(tmp_path: Path) -> None:
    found = compared(run(tmp_path / "first", 0.2, EVALUATION), run(tmp_path / "second", 0.8, EVALUATION))
    assert found["unpaired"] == [] and found["paired"][0].difference == pytest.approx(0.6)


def test_where_a_world_computes_is_no_other_world(tmp_path: Path) -> None:
    """An earlier run, which did not note that the device is free, beside one that did."""
    noted = {"parts": changed("world", device="cuda"), "free": ["world.args.device"]}
    first = run(tmp_path / "first", 0.2, EVALUATION)
    assert compared(first, run(tmp_path / "second", 0.8, EVALUATION, noted))["unpaired"] == []
    noted = {"parts": changed("world", device="cuda", checkpoint="runs/new"), "free": ["world.args.device"]}
    assert len(compared(first, run(tmp_path / "third", 0.8, EVALUATION, noted))["unpaired"]) == 1


def test_what_one_of_two_does_not_say_is_not_taken_for_the_same(tmp_path: Path) -> None:
    found = compared(run(tmp_path / "first", 0.2, EVALUATION), run(tmp_path / "second", 0.8, {}))
    (refused,) = found["unpaired"]
    assert refused.reason == "maybe another world: nothing says which evaluation.world it was measured with"


def test_one_checkpoint_in_two_spellings_is_one(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    first = run(tmp_path / "first", 0.2, changed("world", checkpoint=f"{tmp_path}/world"))
    second = run(tmp_path / "second", 0.8, changed("world", checkpoint=f"{tmp_path}/first/../world"))
    assert compared(first, second)["unpaired"] == []


def test_what_the_evaluation_notes_comes_before_the_config(tmp_path: Path) -> None:
    """A config may have changed since."""
    noted = {"parts": EVALUATION, "free": ["world.args.device"]}
    found = read_run(run(tmp_path / "run", 0.2, changed("world", checkpoint="runs/new"), noted))
    assert found.evaluations["after"].measured_with == MeasuredWith(EVALUATION, ("world.args.device",))
