"""`gymnast check`: which plugin is meant, and what its user is told."""

import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from gymnast_conformance.command import check
from gymnast_core.errors import ConfigError, ContractError, GymnastError, PluginError
from gymnast_core.plugins import compose, discovery, hooks, hookspecs

PLUGINS = '''
"""Two plugins of one name, one of them with a bug."""
from dataclasses import dataclass
from gymnast_core.interfaces import Dataset, RewardModel
from gymnast_core.types import Reward

@dataclass(frozen=True)
class Nothing:
    """No fields."""

class Judge(RewardModel):
    """All is well."""
    api_version = 2
    Config = Nothing
    def __init__(self, config): self.config = config
    def score(self, rollouts): return [Reward(1.0) for _ in rollouts]

class Buggy(Judge):
    def score(self, rollouts): return [rollouts[0].tsak]

class Empty(Dataset):
    """Nothing at all."""
    api_version = 2
    Config = Nothing
    def __init__(self, config): self.config = config
'''
ENTRIES = """
[gymnast.reward_models]
both = check_command_plugins:Judge
buggy = check_command_plugins:Buggy
[gymnast.datasets]
both = check_command_plugins:Empty
[gymnast.hooks]
watching = check_command_hooks
typing = check_command_typing
"""
HOOKS = '"""Watches."""\n\n\ndef gymnast_metrics(event):\n    pass\n'


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    info = tmp_path / "check_command-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: check-command\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    (tmp_path / "check_command_plugins.py").write_text(PLUGINS)
    (tmp_path / "check_command_hooks.py").write_text(HOOKS)
    (tmp_path / "check_command_typing.py").write_text(HOOKS.replace("metrics", "metric"))
    monkeypatch.syspath_prepend(str(tmp_path))
    for remembered in (hooks.plugin_manager, compose.registries):
        remembered.cache_clear()
    yield
    for remembered in (hooks.plugin_manager, compose.registries):
        remembered.cache_clear()
    sys.modules.pop("check_command_plugins", None)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(check, arguments)


@pytest.mark.parametrize("arguments", [["optimizer", "grpo", "group_size=4"], ["grpo"], ["optimizer", "iter-sft"]])
def test_a_plugin_is_found_with_its_kind_and_without(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.exit_code == 0, done.exception
    assert "keeps its contract." in done.output


@pytest.mark.parametrize("name", ["watching", *sorted(discovery.sources("gymnast.hooks"))])
def test_hooks_are_checked_too(plugins: None, name: str) -> None:
    done = run("hooks", name)
    assert done.exit_code == 0, done.exception
    assert f"The hooks {name!r} keep their contract." in done.output


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["polcy", "grpo"], ConfigError, "No kind of plugin 'polcy'. Did you mean 'policy'?"),
        (["policy", "grpo"], PluginError, "No policy 'grpo'"),
        (["policy", "grpo", "more"], ConfigError, "Name one plugin, not 3"),
        (["hooks", "watching", "a=1"], ConfigError, "hooks take none"),
        (["both", "a=1"], ConfigError, "say for which: gymnast check reward-model or dataset both"),
        (["hooks", "typing"], PluginError, "unknown hook 'gymnast_metric'"),
        (["buggy"], ContractError, r"score: expected .* got AttributeError: .*tsak.*check_command_plugins.py:"),
    ],
)
def test_a_mistake_is_one_message(plugins: None, arguments: list[str], error: type[Exception], words: str) -> None:
    import re

    found = run(*arguments).exception
    assert isinstance(found, error)
    assert re.search(words, str(found))


def test_a_device_that_is_not_there_is_one_message() -> None:
    if torch.cuda.is_available():
        pytest.skip("it is there")
    sizes = ["image_size=16", "llm_layers=1", "llm_width=16", "llm_heads=2", "llm_intermediate=16", "n_action_bins=8"]
    towers = ["dino", "siglip"]
    tower = {"patch_size": 8, "width": 16, "depth": 2, "heads": 2}
    arguments = [f"architecture.{size}" for size in sizes]
    arguments += [f"architecture.{name}.{key}={value}" for name in towers for key, value in tower.items()]
    done = run("policy", "openvla-oft", *arguments, "--device", "cuda", "--image-size", "16")
    assert isinstance(done.exception, PluginError)
    assert "failed while it was checked" in str(done.exception)
    assert "cuda" in str(done.exception).lower()


@pytest.mark.filterwarnings("ignore:gymnast_metrics is now")
def test_a_deprecated_hook_is_mentioned(plugins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = {"firstresult": False, "historic": False, "warn_on_impl_args": None}
    marked["warn_on_impl"] = DeprecationWarning("gymnast_metrics is now gymnast_numbers")
    monkeypatch.setattr(hookspecs.gymnast_metrics, "gymnast_spec", marked, raising=False)
    done = run("hooks", "watching")
    assert "ok  deprecated, but still called: gymnast_metrics is now gymnast_numbers" in done.output


def test_everything_of_a_name_is_checked_without_its_kind(plugins: None) -> None:
    done = run("both")
    assert "The reward model 'both' keeps its contract." in done.output
    assert "--  not shown: order and independence, since all judged rollouts got the reward 1\n" in done.output
    assert "expected the method tasks or episodes; got neither" in str(done.exception)


def test_the_tasks_that_a_judge_is_checked_with_take_arguments() -> None:
    """With instructions that the tabletop never gives, nothing can be judged: that is no pass, and is said."""
    done = run("reward-model", "success-classifier", "instructions=[dance]", "--tasks", "tabletop", "tasks.count=2")
    assert isinstance(done.exception, GymnastError)
    assert "0 of 8 were judged, errors only, the first one: " in str(done.exception)
    done = run("reward-model", "random", "--tasks", "tabletop", "tasks.count=2", "tasks.colour=red")
    assert str(done.exception).startswith("tasks.args.colour: No key 'colour'.")
    shipped = Path(__file__).parents[2] / "plugins" / "gymnast_tabletop" / "checkpoints" / "success_classifier"
    done = run("reward-model", "success-classifier", f"checkpoint={shipped}", "--tasks", "tabletop", "tasks.count=2")
    assert done.exit_code == 0, done.exception
    assert "8 of 8 rollouts judged" in done.output


def test_a_classifier_without_a_checkpoint_says_which_command_makes_one() -> None:
    found = str(run("reward-model", "success-classifier").exception)
    assert "`gymnast fit fit-tabletop-success-classifier` makes such a folder, RUN/checkpoint." in found


def test_an_argument_may_be_typed_as_errors_advise_it(tmp_path: Path) -> None:
    """An error names the key that a config has; typed here, it is the argument, and the error is gone."""
    said = str(run("dataset", "lerobot").exception)
    assert "dataset.args.path" in said
    again = str(run("dataset", "lerobot", f"dataset.args.path={tmp_path}").exception)
    assert str(tmp_path) in again and "No key" not in again
    assert run("optimizer", "grpo", "optimizer.args.group_size=4").exit_code == 0
    assert run("optimizer", "grpo", "args.group_size=4").exit_code == 0
    wrong = str(run("optimizer", "grpo", "policy.args.group_size=4").exception)
    assert wrong.startswith("optimizer.args.policy: No key 'policy'."), "that is another component's"


def test_arguments_of_what_stands_beside_may_be_typed_as_errors_advise_them() -> None:
    for place in ("tasks", "tasks.args"):
        done = run("reward-model", "random", "--tasks", "tabletop", f"{place}.count=2", f"{place}.colour=red")
        assert str(done.exception).startswith("tasks.args.colour: No key 'colour'.")
    shipped = Path(__file__).parents[2] / "plugins" / "gymnast_tabletop" / "checkpoints" / "success_classifier"
    judge = ["success-classifier", f"reward_model.args.checkpoint={shipped}"]
    done = run("reward-model", *judge, "--tasks", "tabletop", "tasks.args.count=2")
    assert "8 of 8 rollouts judged" in done.output
    done = run("reward-model", "random", "--world", "gymnasium", "world.args.colour=red")
    assert str(done.exception).startswith("world.args.colour: No key 'colour'.")


def test_an_argument_of_its_own_is_no_place() -> None:
    """`judge` is an argument of `partial-credit`, and a place of reward models: the argument is meant."""
    from gymnast_core.plugins.places import arguments_of

    judges = compose.registries().reward_models
    typed = ["judge=random", "judge.args.probability=1.0"]
    there = arguments_of(judges, "partial-credit", [f"reward_model.args.{text}" for text in typed])
    assert there == arguments_of(judges, "partial-credit", typed)
    assert there["judge"]["args"] == {"probability": 1.0}


def test_a_package_that_is_not_installed_is_found_where_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gymnast_new.command import new

    monkeypatch.chdir(tmp_path)
    assert "is here" not in str(run("reward-model", "my-jugde").exception)
    assert CliRunner().invoke(new, ["reward-model", "my-jugde"]).exit_code == 0
    for arguments in (["reward-model", "my-jugde"], ["my-jugde"]):
        said = str(run(*arguments).exception)
        assert "./gymnast-my-jugde is here and not installed: pip install -e gymnast-my-jugde." in said
