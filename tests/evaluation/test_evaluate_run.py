"""`gymnast evaluate RUN`: what is taken from a run, and what cannot be evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

from gymnast_core.config import RunConfig, load_config, to_yaml
from gymnast_core.errors import ConfigError
from gymnast_evaluation.config import EvaluateConfig
from gymnast_evaluation.from_run import told, values_of_run


def run_of(folder: Path, *overrides: str) -> Path:
    (folder / "policy").mkdir()
    (folder / "config.yaml").write_text(to_yaml(load_config(RunConfig, "tabletop", overrides)))
    return folder


def test_a_training_is_measured_as_it_measured_itself(tmp_path: Path) -> None:
    run = run_of(tmp_path, "seed=3", "loop.horizon=8", "evaluation.tasks.args.count=5")
    values = values_of_run(run)
    config = load_config(EvaluateConfig, values, ["trials=2"])
    assert list(config.policies) == ["start", "trained"]
    start, trained = config.policies["start"].args, config.policies["trained"].args
    assert trained == {**start, "checkpoint": str(run / "policy")} and start["checkpoint"] != trained["checkpoint"]
    assert (config.worlds["gymnasium"].name, config.rewards["gymnasium"].name) == ("gymnasium", "environment")
    assert (config.tasks.name, config.tasks.args["count"], config.horizon) == ("tabletop", 5, 8)
    assert (config.seed, config.trials, config.temperature) == (3, 2, 0.0)
    assert told(run, values) == (
        f"Taken from {run}: policies start (openvla-oft), trained (openvla-oft); worlds gymnasium (gymnasium, judged "
        "by environment); tasks tabletop."
    )


def test_its_world_model_and_judge_come_on_request_or_where_nothing_else_is(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    config = load_config(EvaluateConfig, values_of_run(run, imagined=True))
    assert {label: part.name for label, part in config.worlds.items()} == {
        "gymnasium": "gymnasium", "imagined": "worldgym"
    }  # fmt: skip
    assert config.rewards["imagined"].name == "success-classifier"
    (run / "config.yaml").write_text(to_yaml(load_config(RunConfig, "tabletop", ["evaluation.tasks=null"])))
    alone = load_config(EvaluateConfig, values_of_run(run))
    assert list(alone.worlds) == ["imagined"] and alone.tasks.args["split"] == "training"


def test_a_fitted_policy_needs_a_world_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "config.yaml").write_text("kind: fit\nepisodes: {name: lerobot}\npolicy: {name: openvla-oft}\n")
    values = values_of_run(tmp_path)
    assert list(values["policies"]) == ["trained"]
    with pytest.raises(ConfigError, match="Missing value: tasks"):
        load_config(EvaluateConfig, values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: train\nworld_model: a\npolicy: b\nreward_model: c\noptimizer: d\ntasks: e\n",
         "has no trained policy yet: there is no .*policy. It is written at the end; go on with gymnast train --res"),
        ("kind: fit\nepisodes: {name: a}\nworld_model: {name: worldgym}\n",
         "fitted a world model, and policies are evaluated. Measure it with `gymnast imagine`"),
        ("kind: evaluate\n", "is a run of `gymnast evaluate`, which trains no policy. .*evaluate --resume"),
        ("kind: collect\n", "Give the folder of gymnast train, adapt, dyna or fit."),
    ],
)  # fmt: skip
def test_a_folder_without_a_policy_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        values_of_run(tmp_path)
    with pytest.raises(ConfigError, match="is not a run folder"):
        values_of_run(tmp_path / "nowhere")
