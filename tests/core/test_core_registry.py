import re

import pytest

from gymnast_core.errors import ConfigError, DataError, PluginError
from gymnast_core.plugins.registry import Registry, registries

GROUP = "gymnast.reward_models"
PAGE = ["docs/api-2.md says what to change", "`api_version = 2` in the class", "pip install 'gymnast<"]
JUDGE = """
from dataclasses import dataclass, field
from gymnast_core.errors import DataError
from gymnast_core.interfaces import RewardModel
from gymnast_core.types import Reward

@dataclass(frozen=True)
class Camera:
    name: str = "front"
    crop: list[float] = field(default_factory=lambda: [0.0, 1.0])

class Judge(RewardModel):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        checkpoint: str
        threshold: float = 0.5
        camera: Camera = field(default_factory=Camera)
        limit: int | None = None

        def __post_init__(self):
            if not 0 <= self.threshold <= 1:
                raise ValueError(f"threshold is {self.threshold}; it must lie in [0, 1]")

    def __init__(self, config):
        if config.checkpoint == "explode":
            raise RuntimeError("boom")
        if config.checkpoint == "missing":
            raise DataError("no such file")
        self.config = config

    def score(self, rollouts):
        return [Reward(1.0) for _ in rollouts]

class Future(Judge):
    api_version = 99

class Past(RewardModel):
    Config = Judge.Config

    def score(self, rollouts):
        return []

class Lacking(RewardModel):
    api_version = 2
    Config = Judge.Config

class NoConfig(RewardModel):
    api_version = 2

    def score(self, rollouts):
        return []

class Stranger:
    pass
"""


@pytest.fixture
def registry(site_packages) -> Registry:
    names = ["Judge", "Future", "Past", "Lacking", "NoConfig", "Stranger", "Missing"]
    lines = [f"{name.lower()} = core_judge:{name}" for name in names]
    lines += ["broken = core_broken:X", "quits = core_quits:X", "gone = core_gone:X", "odd = not a target"]
    modules = {
        "core_judge.py": JUDGE,
        "core_broken.py": "import no_such_dependency",
        "core_quits.py": "exit(3)",
    }
    site_packages.add("judges", f"[{GROUP}]\n" + "\n".join(lines), modules)
    site_packages.add("rivals", f"[{GROUP}]\nclash = core_judge:Judge\n")
    site_packages.add("others", f"[{GROUP}]\nclash = core_judge:Future\n")
    return Registry("reward model", GROUP, "RewardModel")


def test_args_become_an_instance_of_config_with_nested_defaults(registry):
    judge = registry.build("judge", {"checkpoint": "x", "threshold": 1, "camera": {"crop": [0.5]}})
    assert type(judge.config) is type(judge).Config
    assert judge.config.threshold == 1.0
    assert (judge.config.camera.name, judge.config.camera.crop) == ("front", [0.5])


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ({"checkpoint": "x", "treshold": 1}, ["rm.args.treshold", "Did you mean 'threshold'?", "limit"]),
        ({"checkpoint": "x", "camera": {"crp": 1}}, ["rm.args.camera.crp", "'crop'"]),
        ({"checkpoint": "x", "camera": "front"}, ["rm.args.camera", "name, crop", "'front'"]),
        ({"checkpoint": "x", "threshold": "high"}, ["rm.args.threshold", "'high'", "Float"]),
        ({"checkpoint": "x", "camera": {"crop": ["a"]}}, ["rm.args.camera.crop", "'a'"]),
        ({"checkpoint": "x", "limit": 1.5}, ["rm.args.limit", "1.5", "Integer"]),
        ({}, ["rm.args.checkpoint", "Missing", "rm.args.checkpoint=VALUE"]),
        ({"checkpoint": "x", "threshold": 2}, ["rm.args", "threshold is 2.0"]),
    ],
)
def test_a_bad_argument_is_one_error_with_its_key_path(registry, args, parts):
    with pytest.raises(ConfigError) as caught:
        registry.build("judge", args, key="rm")
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_place_of_a_name_is_an_argument(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-robot").mkdir()
    with pytest.raises(PluginError, match=r"my-robot is a path, .* args.path=my-robot"):
        registry.build("my-robot")
    for name in ("no-such-thing", "a\0b", "x" * 5000):
        with pytest.raises(PluginError) as caught:
            registry.build(name)
        assert "is a path" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("juge", ["No reward model 'juge'", "Did you mean 'judge'", "gymnast plugins"]),
        ("future", ["plugin API 99", "has 2", "pip install --upgrade gymnast", "pip install 'judges<1.2'"]),
        ("past", ["as plugins of API 1 did; this gymnast has 2", "pip install --upgrade judges", *PAGE]),
        ("lacking", ["lacks score()"]),
        ("noconfig", ["no `Config` dataclass"]),
        ("stranger", ["not a subclass of gymnast_core.interfaces.RewardModel"]),
        ("missing", ["judges 1.2", "AttributeError", "'Missing'"]),
        ("broken", ["judges 1.2", "no_such_dependency", "gymnast plugins --load"]),
        ("quits", ["SystemExit: 3"]),
        ("gone", ["core_gone"]),
        ("odd", ["not a target"]),
        ("clash", ["rivals 1.2", "others 1.2", "core_judge:Judge", "core_judge:Future", "rename"]),
    ],
)
def test_a_plugin_that_cannot_be_used_says_why_and_stops_no_other(registry, name, parts):
    with pytest.raises(PluginError) as caught:
        registry.build(name, {"checkpoint": "x"})
    for part in parts:
        assert part in str(caught.value)
    assert registry.build("judge", {"checkpoint": "x"}).score([]) == []


def test_a_config_is_had_without_building(registry):
    config = registry.configure("judge", {"checkpoint": "explode", "threshold": 0.25})
    assert (type(config), config.threshold) == (registry.load("judge").Config, 0.25)
    with pytest.raises(ConfigError, match=r"reward_model\.args\.treshold: No key 'treshold'"):
        registry.configure("judge", {"checkpoint": "x", "treshold": 1})


def test_describe_lists_broken_plugins_and_after_loading_their_traceback(registry):
    before = {info.name: info for info in registry.describe()}
    assert before["judge"].error is None
    assert "no module 'core_gone'" in before["gone"].error
    assert "rivals" in before["clash"].error
    with pytest.raises(PluginError):
        registry.load("broken")
    after = {info.name: info for info in registry.describe()}
    assert "Traceback" in after["broken"].error
    assert "import no_such_dependency" in after["broken"].error


def test_a_failing_constructor_says_whose_it_is_and_where(registry):
    with pytest.raises(PluginError) as caught:
        registry.build("judge", {"checkpoint": "explode"})
    assert "The reward model 'judge' of judges 1.2 (core_judge:Judge) cannot be built: RuntimeError: boom" in str(
        caught.value
    )
    assert re.search(r"core_judge\.py:\d+", str(caught.value))


def test_our_own_errors_pass_as_they_are(registry):
    with pytest.raises(DataError, match=r"^no such file$"):
        registry.build("judge", {"checkpoint": "missing"})


def test_registered_classes_are_built_and_clash_like_any_other(registry):
    judge = registry.load("judge")
    registry.register("mine", judge)
    registry.register("mine", judge)
    assert "mine" in registry.names()
    assert isinstance(registry.build("mine", {"checkpoint": "x"}), judge)
    registry.register("judge", type("Other", (judge,), {}))
    with pytest.raises(PluginError, match="Two plugins"):
        registry.load("judge")


def test_there_is_a_registry_of_every_kind():
    kinds = [registry.kind for registry in registries()]
    assert kinds == ["world model", "policy", "reward model", "optimizer", "dataset"]
    assert "worldgym" in registries().world_models.names()
