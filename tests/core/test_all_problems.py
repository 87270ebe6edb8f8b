"""Everything that is wrong with a config is in one error, known before anything is loaded."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gymnast_core.cli import config_from
from gymnast_core.config import ComponentConfig, RunConfig, load_config
from gymnast_core.config.ranges import Count
from gymnast_core.errors import ConfigError, ConfigErrors, GymnastError
from gymnast_dyna.config import DynaConfig
from gymnast_evaluation.config import EvaluateConfig
from gymnast_fit.config import FitConfig

BAD = """
kind: train
world_model: {name: worldgim, args: {a: 1}}
policy: {name: openvla-oft, args: {chunk_lenth: 4}}
reward_model: {name: success-classifier, args: {threshold: 2, camra: x}}
optimizer: {name: grpo, args: {group_size: many}}
loop: {iterations: -1, horizn: 3, temperature: hot}
trainer: {max_epochs: 3, precison: 16}
hooks: {judgin: {a: 1}, judging: {window: 0}}
"""
OVERRIDES = ("seed=-3", "lop.x=1", "output=${oc.env:HOME}", "evaluation.world.args.viw=3", "nothing")
TABLETOP = ("tabletop", "evaluation.tasks=null")


def problems(schema: Any, *arguments: str) -> list[str]:
    with pytest.raises(GymnastError) as caught:
        config_from(schema, arguments, None)
    return [str(one) for one in caught.value.problems]


def test_a_file_and_overrides_are_told_of_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    with pytest.raises(ConfigErrors) as caught:
        load_config(RunConfig, str(path), OVERRIDES)
    core = caught.value.problems
    with pytest.raises(ConfigErrors) as caught:
        config_from(RunConfig, (str(path), *(text for text in OVERRIDES if "=" in text)), None)
    whole = [str(one) for one in caught.value.problems]
    assert str(core[0]).startswith("'nothing' is not an override; write key=value")
    beginnings = [
        "output is '${oc.env:HOME}'",
        "loop.horizn: No key 'horizn'. Did you mean 'horizon'? Known: drop_incomplete_groups, ",
        "lop: No key 'lop'. Did you mean 'loop'? Known: check_saved, ",
        "loop.temperature: Value 'hot' of type 'str' could not be converted to Float.",
        "Missing value: tasks. Set it in the YAML or with tasks=VALUE.",
        "loop.iterations is -1; it must be at least 0.",
        "seed is -3; it must be at least 0 and below",
        "world_model: No world model 'worldgim'. Did you mean 'worldgym'? Known: ",
        "policy.args.chunk_lenth: No key 'chunk_lenth'. Did you mean 'chunk_length'?",
        "reward_model.args.camra: No key 'camra'. Did you mean 'camera'?",
        "reward_model.args.threshold is 2; it must be above 0 and below 1.",
        "optimizer.args.group_size: Value 'many' of type 'str' could not be converted to Integer.",
        "evaluation.world.args.viw: No key 'viw'. Did you mean 'view'?",
        "hooks.judgin: No section 'judgin'. Did you mean 'judging'?",
        "hooks.judging.window is 0; it must be at least 2",
        "trainer.max_epochs cannot be set: set loop.iterations (train)",
        "trainer.precison: No argument of lightning.Trainer 'precison'. Did you mean 'precision'?",
    ]
    assert [text for text, begin in zip(whole, beginnings, strict=True) if not text.startswith(begin)] == []
    shown = str(caught.value).splitlines()
    assert shown[0] == "17 things are wrong with the config:" and all(line.startswith("- ") for line in shown[1:])


def test_one_problem_is_told_as_before() -> None:
    with pytest.raises(ConfigError) as caught:
        config_from(RunConfig, (*TABLETOP, "loop.iteration=1"), None)
    assert not isinstance(caught.value, ConfigErrors)
    assert str(caught.value).startswith("loop.iteration: No key 'iteration'. Did you mean 'iterations'?")


def test_what_does_not_fit_together_is_known_with_the_rest() -> None:
    """These were found one a run, after policy and world model had been loaded."""
    found = problems(
        RunConfig, *TABLETOP, "optimizer=iter-sft", "loop.horizon=15", "loop.tasks_per_iteration=1",
        "evaluation.horizon=6",
        "trainer.devices=2", "trainer.strategy=magic", "seed=-1",
    )  # fmt: skip
    beginnings = [
        "seed is -1",
        "trainer.strategy=magic: the weights are whole in every process. Choose auto, ddp; fsdp2 shares them out.",
        "loop.horizon is 15, no multiple of the chunk length 4 of policy 'openvla-oft'; set loop.horizon=12.",
        "evaluation.horizon is 6, no multiple of the chunk length 4 of policy 'openvla-oft'; set evaluation.horizon=4.",
        "1 groups of ",
        "The optimizer 'iter-sft' mixes in demonstrations; set demonstrations.name and .args.",
    ]
    assert [text for text, begin in zip(found, beginnings, strict=True) if not text.startswith(begin)] == []


def test_every_component_of_an_evaluation_is_checked() -> None:
    found = problems(
        EvaluateConfig, "policies.one=openvla-off", "policies.two={name: openvla-oft, args: {bas: 1, chunk_length: 7}}",
        "worlds.real=gymnasiun", "rewards.real={name: random, args: {probability: 3}}", "tasks=tabeltop",
    )  # fmt: skip
    assert [text.partition(":")[0] for text in found[:-1]] == [
        "tasks", "policies.one", "policies.two.args.bas", "worlds.real"
    ]  # fmt: skip
    assert found[-1] == "rewards.real.args.probability is 3; it must be at least 0 and at most 1."
    assert "Did you mean 'openvla-oft'" in found[1]


def test_components_inside_arguments_are_checked_too() -> None:
    tasks = "tasks={name: several-episodes, args: {of: [{name: lerobott}, {name: rlds, args: {pth: x}}]}}"
    found = problems(FitConfig, "policy=openvla-oft", f"episodes{tasks.removeprefix('tasks')}")
    assert found[0].startswith("episodes.args.of[0]: No dataset 'lerobott'. Did you mean 'lerobot'?")
    assert found[1].startswith("episodes.args.of[1].args.pth: No key 'pth'. Did you mean 'path'?")


def test_rules_between_fields_are_asked_where_each_field_is_right() -> None:
    text = "checkpoint_share=0.1 has no effect beside checkpoint_every=2. Give one of them."
    assert problems(RunConfig, *TABLETOP, "checkpoint_every=2", "checkpoint_share=0.1") == [text]
    found = problems(RunConfig, *TABLETOP, "checkpoint_every=0", "checkpoint_share=0.1")
    assert found == ["checkpoint_every is 0; it must be at least 1."]
    # What cannot be read is not called missing.
    assert problems(FitConfig, "nowhere", "fit.steps=0") == [
        problems(FitConfig, "nowhere")[0],
        "fit.steps is 0; it must be at least 1.",
    ]


def test_a_reference_that_leads_nowhere_is_one_of_several() -> None:
    found = problems(RunConfig, *TABLETOP, "output=${nowhere}", "seed=${loop.nowhere}", "loop.horizon=0")
    assert [text.partition(":")[0] for text in found] == [
        "output", "seed", "loop.horizon is 0; it must be at least 1."
    ]  # fmt: skip


def test_only_the_kind_that_stands_there_is_looked_for() -> None:
    found = problems(RunConfig, *TABLETOP, "policy=grpo", "tasks=worldgym")
    assert found[0].startswith("policy: No policy 'grpo'.") and found[1].startswith("tasks: No dataset 'worldgym'.")


@dataclass(frozen=True)
class Other:
    """Another command's config."""

    kind: ClassVar[str] = "other"
    policy: ComponentConfig
    steps: Count = 1


@dataclass(frozen=True)
class Whole:
    """A config with a section that is another command's."""

    kind: ClassVar[str] = "whole"
    sections: ClassVar[dict[str, Any]] = {"inner.other": Other}
    inner: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


def test_sections_that_are_other_commands_configs_are_read_as_theirs() -> None:
    assert config_from(Whole, ("inner.other.steps=2",), None).inner == {"other": {"steps": 2}}
    found = problems(Whole, "inner.other.steps=0", "inner.other.policy=openvla-off", "inner.other.step=1", "seed=x")
    assert [text.partition(":")[0].partition(" is")[0] for text in found] == [
        "seed", "inner.other.step", "inner.other.steps", "inner.other.policy",
    ]  # fmt: skip


def test_the_stages_of_rounds_are_checked_with_the_rest() -> None:
    found = problems(
        DynaConfig, "dyna-tabletop", "train.loop.iteration=1", "train.optimizer=grpp", "evaluate.trials=0", "rounds=0",
        "world.fit.fit.steps=0", "collect.keep=some",
    )  # fmt: skip
    beginnings = [
        "rounds is 0", "collect.keep: ", "world.fit.fit.steps is 0", "train.loop.iteration: No key",
        "train.optimizer: No optimizer 'grpp'. Did you mean 'grpo'", "evaluate.trials is 0",
    ]  # fmt: skip
    assert [text for text, begin in zip(found, beginnings, strict=True) if not text.startswith(begin)] == []


def test_several_travel_between_processes() -> None:
    error = ConfigErrors([ConfigError("a"), ConfigErrors([ConfigError("b"), ConfigError("c\nd")])])
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == "3 things are wrong with the config:\n- a\n- b\n- c\n  d"
    assert [type(one) for one in again.problems] == [ConfigError] * 3
