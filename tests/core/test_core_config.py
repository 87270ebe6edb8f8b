import re
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from gymnast_core.config import ComponentConfig, RunConfig, load_config, to_yaml
from gymnast_core.config.load import merged
from gymnast_core.config.presets import presets
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError, ConfigErrors
from gymnast_core.plugins.compose import registries
from gymnast_evaluation.config import EvaluateConfig
from gymnast_fit.config import FitConfig

RUN = """# Push blocks
world_model: {name: worldgym, args: {checkpoint: "${preset_dir}/wm", guidance: 3.0}}
policy: openvla-oft
reward_model: {name: success-classifier, args: {threshold: 0.7, views: [1, 2]}}
optimizer: {name: grpo, args: {group_size: 8}}
tasks: {name: tabletop}
loop: {iterations: 5, temperature: 1e0}
trainer: {accelerator: cpu}
"""


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return str(path)


def test_yaml_fills_the_dataclasses_and_paths_are_relative_to_it(run_file, tmp_path):
    config = load_config(RunConfig, run_file)
    assert config.policy.name == "openvla-oft"
    assert config.world_model.args == {"checkpoint": f"{tmp_path}/wm", "guidance": 3.0}
    assert (config.loop.iterations, config.loop.temperature) == (5, 1.0)
    assert config.evaluation.world.name == "gymnasium"
    assert config.trainer == {"accelerator": "cpu"}


def test_overrides_reach_everything_and_the_last_wins(run_file):
    overrides = ["loop.iterations=2", "loop.iterations=3", "reward_model.args.threshold=0.9"]
    overrides += ["reward_model.args.views=[3]", "trainer.devices=2", "evaluation.world.args.size=4"]
    config = load_config(RunConfig, run_file, overrides)
    assert config.loop.iterations == 3
    assert config.reward_model.args == {"threshold": 0.9, "views": [3]}
    assert config.trainer == {"accelerator": "cpu", "devices": 2}
    assert config.evaluation.world.args == {"size": 4}


@pytest.mark.parametrize("swap", ["world_model.name=gymnasium", "world_model=gymnasium"])
def test_swapping_a_component_drops_the_args_of_the_old_one(run_file, caplog, swap):
    config = load_config(RunConfig, run_file, [swap, "world_model.args.image_key=top"])
    assert config.world_model.name == "gymnasium"
    assert config.world_model.args == {"image_key": "top"}
    assert "checkpoint, guidance" in caplog.text
    assert config.reward_model.args["threshold"] == 0.7


def test_what_the_new_component_is_given_anew_was_not_dropped(run_file, caplog):
    swapped = ["world_model={name: gymnasium, args: {guidance: 2}}"]
    assert load_config(RunConfig, run_file, swapped).world_model.args == {"guidance": 2}
    assert "dropped the arguments meant for 'worldgym': checkpoint." in caplog.text
    caplog.clear()
    load_config(RunConfig, run_file, [*swapped, "world_model.args.checkpoint=there"])
    assert caplog.text == ""


def test_naming_the_same_component_keeps_its_args(run_file):
    config = load_config(RunConfig, run_file, ["world_model=worldgym", "world_model.args.guidance=1"])
    assert config.world_model.args["guidance"] == 1
    assert "checkpoint" in config.world_model.args


def test_a_resolved_config_reads_back_the_same(run_file, tmp_path):
    config = load_config(RunConfig, run_file, ["evaluation.tasks=tabletop", "output=x"])
    again = tmp_path / "again" / "config.yaml"
    again.parent.mkdir()
    again.write_text(to_yaml(config))
    assert load_config(RunConfig, str(again)) == config


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("lop.iterations=1", ["lop", "Did you mean 'loop'?"]),
        ("loop.iteration=1", ["loop.iteration:", "'iterations'", "horizon"]),
        ("loop.iterations=many", ["loop.iterations", "'many'"]),
        ("loop=3", ["loop takes keys", "3"]),
        ("world_model.arg.x=3", ["world_model.arg:", "'args'"]),
        ("evaluation.world.nam=x", ["evaluation.world.nam", "'name'"]),
        ("iterations", ["'iterations' is not an override", "key=value"]),
        ("=3", ["not an override"]),
        ("output=${nowhere}", ["output", "nowhere"]),
        ("loop.horizon=[1", ["loop.horizon", "'[1'"]),
        ("policy.args.key=${oc.env:HOME}", ["policy.args.key", "secrets"]),
        ("output=${loop}", ["output"]),
        ("output=${output}", ["output"]),
        ("loop.horizon=???", ["Missing value: loop.horizon"]),
    ],
)
def test_a_bad_override_is_one_error_with_its_key_path(run_file, override, parts):
    with pytest.raises(ConfigError) as caught:
        load_config(RunConfig, run_file, [override])
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[1, 2]", "a: [", "a: b: c", "a: 1\na: 2", "a: &x 1\nb: *x", "a: !!python/name:os.system"]
)
def test_a_bad_file_is_an_error_that_names_it(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(RunConfig, str(path))


def test_missing_files_presets_and_components_are_told(run_file):
    with pytest.raises(ConfigError, match="gymnast presets"):
        load_config(RunConfig, "nowhere.yaml")
    with pytest.raises(ConfigError, match="No preset 'nowhere'"):
        load_config(RunConfig, "nowhere")
    with pytest.raises(ConfigError, match=r"Missing value: optimizer.*reward_model"):
        load_config(RunConfig, None, ["world_model=a", "policy=b"])


def test_fit_takes_exactly_one_component():
    config = load_config(FitConfig, None, ["world_model=worldgym", "episodes=tabletop-episodes", "fit.ema=.9"])
    assert (config.world_model.name, config.fit.ema, config.policy) == ("worldgym", 0.9, None)
    with pytest.raises(ConfigError, match="given: world_model and policy"):
        load_config(FitConfig, None, ["world_model=a", "policy=b", "episodes=c"])
    with pytest.raises(ConfigError, match="given: none"):
        load_config(FitConfig, None, ["episodes=c"])
    with pytest.raises(ConfigError, match="Known: adamw, muon"):
        load_config(FitConfig, None, ["policy=b", "episodes=c", "fit.optimizer=sgd"])


def test_a_component_that_two_overrides_name_is_the_last_one_with_its_args_alone(run_file, caplog):
    first = "reward_model={name: random, args: {probability: 0.3}}"
    second = "reward_model={name: local-vlm, args: {checkpoint: there}}"
    config = load_config(RunConfig, run_file, [first, second, "reward_model.args.frames=7"])
    assert config.reward_model.name == "local-vlm"
    assert config.reward_model.args == {"checkpoint": "there", "frames": 7}
    assert "dropped the arguments meant for 'random': probability" in caplog.text
    same = load_config(RunConfig, run_file, [first, "reward_model.name=random"])
    assert same.reward_model.args == {"probability": 0.3}


def test_evaluate_labels_its_components_and_swaps_them(tmp_path, caplog):
    path = tmp_path / "evaluate.yaml"
    path.write_text(
        "kind: evaluate\npolicies: {old: {name: p, args: {x: 1}}}\n"
        "worlds: {real: gymnasium}\nrewards: {real: environment}\ntasks: tabletop\n"
    )
    config = load_config(EvaluateConfig, str(path), ["policies.old=q", "policies.new=p", "temperature=0.5"])
    assert {label: part.name for label, part in config.policies.items()} == {"old": "q", "new": "p"}
    assert config.policies["old"].args == {}
    with pytest.raises(ConfigError, match=r"judge for each world \['real', 'wm'\]"):
        load_config(EvaluateConfig, str(path), ["worlds.wm=worldgym"])
    with pytest.raises(ConfigError, match="`gymnast evaluate`, not of `gymnast train`"):
        load_config(RunConfig, str(path))


def test_presets_are_listed_without_importing_their_package(site_packages):
    entry = "[gymnast.presets]\nany = core_presets\n"
    files = {
        "core_presets/__init__.py": "raise RuntimeError('imported')",
        "core_presets/presets/push.yaml": RUN,
        "core_presets/presets/imitate.yaml": "kind: fit\npolicy: a\nepisodes: b\n",
    }
    site_packages.add("core-presets", entry, files)
    found = {preset.name: preset for preset in presets() if preset.distribution == "core-presets"}
    assert (found["push"].kind, found["push"].description) == ("train", "Push blocks")
    assert (found["imitate"].kind, found["imitate"].description) == ("fit", "")
    assert load_config(RunConfig, "push").loop.iterations == 5
    with pytest.raises(ConfigError, match="Did you mean 'push'"):
        load_config(RunConfig, "puush")
    with pytest.raises(ConfigError, match="`gymnast fit`, not of `gymnast train`"):
        load_config(RunConfig, "imitate")


def test_two_presets_of_one_name_are_an_error_that_names_both(site_packages):
    for name in ("core-left", "core-right"):
        package = name.replace("-", "_")
        entry = f"[gymnast.presets]\n{name} = {package}\n"
        site_packages.add(name, entry, {f"{package}/presets/twice.yaml": RUN})
    with pytest.raises(ConfigError, match=r"core-left and .* of core-right"):
        load_config(RunConfig, "twice")


def test_a_share_of_the_time_has_no_effect_beside_a_number_of_iterations(run_file):
    with pytest.raises(ConfigError, match=r"checkpoint_share=0.1 has no effect beside checkpoint_every=2"):
        load_config(RunConfig, run_file, ["checkpoint_every=2", "checkpoint_share=0.1"])


@dataclass(frozen=True)
class Judge:
    name: str
    weight: float = 1.0
    part: ComponentConfig | None = None

    def __post_init__(self):
        if self.name == "nobody":
            raise ConfigError("Nobody judges nothing.")


@dataclass(frozen=True)
class Panel:
    kind: ClassVar[str] = "panel"
    judges: list[Judge] = field(default_factory=list)
    views: list[list[int]] = field(default_factory=list)
    cameras: list[str] = field(default_factory=lambda: ["front"])


PANEL = {
    "judges": [{"name": "a", "weight": 2, "part": {"name": "x", "args": {"old": 1, "of": [1, 2]}}}, {"name": "b"}],
    "views": [[1, 2], [3]],
}


def test_a_number_in_a_key_is_a_place_in_a_list():
    overrides = ["judges.0.weight=3", "judges[1].name=yes", "views.0.1=7", "views[1][0]=8", "judges.0.part.args.of.1=5"]
    config = load_config(Panel, PANEL, overrides)
    assert config.judges == [Judge("a", 3.0, ComponentConfig("x", {"old": 1, "of": [1, 5]})), Judge("yes")]
    assert config.views == [[1, 7], [8]]
    assert PANEL["judges"][0]["weight"] == 2


def test_changes_go_over_values_and_into_lists():
    assert merged({"a": [1, {"b": 2}], "c": 3}, {"a": {"1": {"b": 4}}}) == {"a": [1, {"b": 4}], "c": 3}
    with pytest.raises(ConfigError, match=r"a is a list without '2'\. It holds 2: a\.0, a\.1\."):
        merged({"a": [1, 2]}, {"a": {"2": 3}})


def test_a_component_in_a_list_is_swapped_like_any(caplog):
    config = load_config(Panel, PANEL, ["judges.0.part.name=y", "judges.0.part.args.new=2"])
    assert config.judges[0].part == ComponentConfig("y", {"new": 2})
    assert "judges.0.part is now 'y': dropped the arguments meant for 'x': old, of" in caplog.text


def test_the_callers_values_stay_as_they_were():
    source = {"judges": [{"name": "a", "part": {"name": "x", "args": {"old": 1}}}]}
    load_config(Panel, source, ["judges.0.part.name=y"])
    assert source == {"judges": [{"name": "a", "part": {"name": "x", "args": {"old": 1}}}]}
    run = {
        "policy": {"name": "p", "args": {"a": 1}},
        "world_model": "w",
        "reward_model": "r",
        "optimizer": "o",
        "tasks": "t",
    }
    load_config(RunConfig, run, ["policy=other"])
    assert run["policy"] == {"name": "p", "args": {"a": 1}}


def test_overrides_of_lists_build_on_each_other():
    swapped = ["judges.0.weight=3", "judges=[{name: c}, {name: d}]", "judges.1.weight=4"]
    assert load_config(Panel, PANEL, swapped).judges == [Judge("c"), Judge("d", 4.0)]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("judges.2.weight=1", "judges is a list without '2'. It holds 2: judges.0, judges.1. judges=[...] replaces"),
        ("judges.-1.weight=1", "judges is a list without '-1'."),
        ("judges.²=1", "judges is a list without '²'."),
        ("judges.weight=1", "judges is a list without 'weight'."),
        pytest.param(f"judges.{'9' * 5000}.weight=1", "judges is a list without '999", id="digits"),
        ("cameras.0=wrist", "cameras takes a list: cameras=[...]; not keys: 0."),
        ("judges.1.wait=1", "judges[1].wait: No key 'wait'. Did you mean 'weight'?"),
        ("judges.1.weight=heavy", "judges[1].weight: Value 'heavy' of type 'str' could not be converted to Float"),
        ("judges.1=b", "judges[1] takes keys (name, weight, part), not the value 'b'."),
        ("judges=[{weight: 2}]", "Missing value: judges[0].name."),
    ],
)
def test_what_is_wrong_in_a_list_is_told_with_its_place(override, told):
    with pytest.raises(ConfigError, match=f"^{re.escape(told)}"):
        load_config(Panel, PANEL, [override])


def test_all_that_is_wrong_in_lists_is_told_at_once():
    with pytest.raises(ConfigErrors) as caught:
        load_config(Panel, PANEL, ["judges.0.weight=heavy", "judges.1.name=nobody", "judges.0.size=1", "views.0.0=x"])
    told = str(caught.value)
    for part in ["judges[0].weight", "judges[0].size", "Nobody judges nothing", "views[0][0]"]:
        assert part in told


@dataclass(frozen=True)
class Judged:
    """A section whose component has default arguments, as the truth of `imagined-episodes` has."""

    truth: ComponentConfig = field(default_factory=lambda: ComponentConfig("environment", {"always_replay": True}))


@dataclass(frozen=True)
class Judging:
    inside: Judged = field(default_factory=Judged)
    perhaps: ComponentConfig | None = None


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ComponentConfig("environment", {"always_replay": True})),
        ({"name": "environment"}, ComponentConfig("environment", {"always_replay": True})),
        ({"args": {"x": 1}}, ComponentConfig("environment", {"always_replay": True, "x": 1})),
        ({"name": "claude"}, ComponentConfig("claude", {})),
        ({"name": "claude", "args": {"max_usd": 5}}, ComponentConfig("claude", {"max_usd": 5})),
    ],
)
def test_another_component_takes_no_arguments_of_the_default(given, wanted):
    assert typed(Judged, {"truth": given}).truth == wanted
    found = typed(Judging, {"inside": {"truth": given}, "perhaps": {"name": "claude"}})
    assert found.inside.truth == wanted and found.perhaps == ComponentConfig("claude", {})


def test_any_reward_model_says_what_is_true_of_imagined_episodes():
    needed = {name: {"name": "x"} for name in ("tasks", "policy", "world_model")}
    configured = registries().datasets.configure(
        "imagined-episodes", {**needed, "horizon": 4, "truth": {"name": "random", "args": {"seed": 3}}}
    )
    assert configured.truth == ComponentConfig("random", {"seed": 3})
