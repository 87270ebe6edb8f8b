"""`gymnast show` and the sentences of `gymnast plugins`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from gymnast_core.cli import cli
from gymnast_core.config import RunConfig, load_config
from gymnast_core.config.presets import presets
from gymnast_core.errors import GymnastError
from gymnast_core.plugins.registry import registries
from gymnast_core.training.engine import engines
from gymnast_listing.summaries import first_sentence
from gymnast_listing.targets import names


def show(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["show", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_a_preset_is_shown_with_its_comments_and_where_it_is() -> None:
    (preset,) = [preset for preset in presets() if preset.name == "tabletop"]
    head, text = show("preset", "tabletop").split("\n", 1)
    assert head == f"# The preset 'tabletop' of `gymnast train`: {preset.path}"
    assert text.strip() == preset.path.read_text().strip() and "# " in text


@pytest.mark.parametrize("name", sorted({preset.name for preset in presets() if preset.distribution == "gymnast"}))
def test_a_resolved_preset_is_yaml_with_every_key(name: str) -> None:
    text = show("preset", name, "--resolved")
    values = yaml.safe_load(text)
    assert values["kind"] in names()["command"] and "# Every key with its value" in text


def test_a_resolved_preset_means_the_same_run(tmp_path: Path) -> None:
    """Written to a file it is read back as a config whose components get the same arguments."""
    path = tmp_path / "all.yaml"
    path.write_text(show("tabletop", "--resolved"))
    one, other = load_config(RunConfig, "tabletop"), load_config(RunConfig, str(path))
    assert (one.loop, one.evaluation.temperature, one.seed) == (other.loop, other.evaluation.temperature, other.seed)
    known = registries()
    for key, registry in {"world_model": known.world_models, "policy": known.policies, "optimizer": known.optimizers,
                          "reward_model": known.reward_models, "tasks": known.datasets}.items():  # fmt: skip
        mine, theirs = getattr(one, key), getattr(other, key)
        assert registry.configure(mine.name, mine.args) == registry.configure(theirs.name, theirs.args)
        assert len(theirs.args) >= len(mine.args)
    assert len(other.optimizer.args) > len(one.optimizer.args)


def test_the_arguments_of_a_plugin_have_type_range_default_and_meaning() -> None:
    text = show("success-classifier")
    assert text.startswith("The reward model 'success-classifier' of gymnast ")
    assert "Success as a small network learned it from labelled episodes." in text
    assert "Arguments (reward_model.args.KEY=VALUE):" in text
    assert (
        "  threshold   float | None, above 0 and below 1   default null\n"
        "      Probability above which a rollout counts as a success; None: the checkpoint's, or 0.5.\n"
    ) in text
    assert "  augmentation.blur   float, at least 0 and at most 2   default 1.0\n" in text
    assert "`null` in a component's arguments is settled when it is built: from its checkpoint" in text


def test_settings_that_a_published_checkpoint_brings_are_shown() -> None:
    text = show("world-model", "worldgym")
    assert "Defaults with 'bridge-v2': " in text and "\n  window   int | None, at least 2" in text


def test_hooks_and_commands_are_shown_with_their_keys() -> None:
    hooks = show("hooks", "judging")
    assert "Listens to: gymnast_run_started" in hooks and "Arguments (hooks.judging.KEY=VALUE):" in hooks
    command = show("command", "evaluate")
    assert "Usage: gymnast evaluate" in command and "  trials   int, at least 1   default 1\n" in command
    assert "Arguments" not in show("command", "view")
    assert "  loop.horizon   int, at least 1   default 40\n" in show("train")


def test_a_name_of_several_kinds_says_so() -> None:
    text = show("tabletop")
    assert text.startswith(
        "'tabletop' is the name of several: preset and dataset. One of them alone: gymnast show preset tabletop\n"
    )
    assert "# The preset 'tabletop'" in text and "The dataset 'tabletop' of" in text


def test_a_run_is_shown_as_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("kind: train\nseed: 7\n")
    assert show(str(tmp_path)) == f"# The config of a run: {tmp_path}/config.yaml\nkind: train\nseed: 7\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grppo"], "No plugin, preset, file or run 'grppo'. Did you mean 'grpo'"),
        (["tabeltop"], "Did you mean 'tabletop' or 'tabletop-"),
        (["dataset", "grpo"], "No dataset 'grpo'. Known: adaptation, "),
        (["plicy", "grpo"], "No kind 'plicy'. Did you mean 'policy'? Known: command, dataset, "),
        (["wan"], "No plugin, preset, file or run 'wan'. `wan` is in gymnast-wan: pip install gymnast-wan"),
        (["optimizer", "masked-grpo"], "No optimizer 'masked-grpo'. `masked-grpo` is in gymnast-wovr: "),
        (["dataset", "masked-grpo"], "No dataset 'masked-grpo'. Did you mean "),
        (["preset", "metaworld"], "`metaworld` is in gymnast-metaworld: "),
        (["a", "b", "c"], "Show one thing, not 3: gymnast show [KIND] NAME."),
        (["."], ". is not a run folder: it has no config.yaml."),
    ],
)
def test_a_name_that_is_not_there_gets_near_ones(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(cli, ["show", *arguments])
    assert isinstance(done.exception, GymnastError) and message in str(done.exception)


def test_the_list_of_plugins_says_what_each_is() -> None:
    rows = [line.split("\t") for line in CliRunner().invoke(cli, ["plugins"]).output.splitlines()]
    said = {(row[0], row[1]): row[4] for row in rows if len(row) == 6}
    assert said["policy", "openvla-oft"] == (
        "A vision-language-action model with parallel decoding of action chunks (arXiv 2502.19645)."
    )
    assert said["hooks", "evaluation"].startswith("The hooks through which a training run measures its policy")
    assert said["command", "collect"].startswith("Record episodes in any Gymnasium environment")
    assert [key for key, sentence in said.items() if not sentence] == []


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("One.", "One."),
        ("GRPO without its biases (Dr. GRPO, arXiv 1).  And\nmore.", "GRPO without its biases (Dr. GRPO, arXiv 1)."),
        ("Ends 0.5 later. Then.\n\nMore.", "Ends 0.5 later."),
        ("word " * 40, ("word " * 21).strip() + " …"),
    ],
)
def test_the_first_sentence(docstring: str, sentence: str) -> None:
    assert first_sentence(docstring) == sentence


def test_the_engine_that_the_core_brings_is_listed_and_shown() -> None:
    """It has no entry point; `engine.args.batches` of scale.md is its argument."""
    rows = [line.split("\t") for line in CliRunner().invoke(cli, ["plugins"]).output.splitlines()]
    listed = {row[1]: row[3] for row in rows if row[0] == "gymnast.engines"}
    assert listed.keys() >= set(engines().names()) and {"local", "ray"} <= listed.keys()
    (source,) = engines().sources("local")
    assert listed["local"] == source.target and engines().load("local").__name__ == "LocalEngine"
    text = show("local")
    assert text.startswith("The engine 'local' of gymnast ")
    assert "Arguments (engine.args.KEY=VALUE):\n\n  batches   int | None, at least 1   default null\n" in text
    assert show("engine", "local") == text
    done = CliRunner().invoke(cli, ["show", "engine", "locl"])
    assert "No engine 'locl'. Did you mean 'local'" in str(done.exception)
