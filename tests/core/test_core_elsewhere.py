"""Names of packages that are not installed: what whoever types them is told."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from gymnast_core.cli import cli
from gymnast_core.config import RunConfig, load_config
from gymnast_core.config.presets import find_preset, presets
from gymnast_core.errors import ConfigError, GymnastError, PluginError, unknown_name
from gymnast_core.plugins import discovery
from gymnast_core.plugins.early import check_early
from gymnast_core.plugins.elsewhere import where_from
from gymnast_core.plugins.hooks import check_sections
from gymnast_core.plugins.registry import registries

ROOT = Path(__file__).parents[2]
WAN = "`wan` is in gymnast-wan: pip install gymnast-wan (in a checkout: pip install -e contrib/gymnast-wan)."


def needs_absent(*distributions: str) -> None:
    """The contributed packages' own tests run where they are installed; there, these names are no error."""
    here = {source.distribution for names in discovery.installed().values() for of in names.values() for source in of}
    if here & set(distributions):
        pytest.skip(f"{' and '.join(distributions)} must not be installed")


def test_the_names_are_those_of_the_packages() -> None:
    spec = importlib.util.spec_from_file_location("list_names", ROOT / "contrib" / "list_names.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.TARGET.read_text() == script.contributed(), "run python contrib/list_names.py"


def test_every_contributed_name_is_told_with_a_folder_that_is_there() -> None:
    for folder in ROOT.glob("contrib/gymnast-*"):
        for group, names in tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"].items():
            for name in names if group.startswith("gymnast.") and group != "gymnast.presets" else ():
                assert where_from(group, name).endswith(f"pip install -e contrib/{folder.name}).")
    assert where_from("gymnast.policies", "wan") == "", "a name is one of its group"


def test_a_name_that_exists_elsewhere_is_no_typing_error() -> None:
    assert unknown_name("optimizer", "masked-grpo", ["dr-grpo"]).startswith("No optimizer 'masked-grpo'. Did you mean")
    told = unknown_name("optimizer", "masked-grpo", ["dr-grpo"], "It is there.")
    assert told == "No optimizer 'masked-grpo'. It is there. Known: dr-grpo."


def test_components_and_hooks_are_told() -> None:
    needs_absent("gymnast-wan", "gymnast-wovr")
    with pytest.raises(PluginError) as of_registry:
        registries().world_models.load("wan")
    parts = ["world_model=wan", "policy=openvla-oft", "reward_model=random", "optimizer=masked-grpo", "tasks=tabletop"]
    with pytest.raises(GymnastError) as of_config:
        load_config(RunConfig, None, parts, checks=[check_early])
    for said in (str(of_registry.value), str(of_config.value)):
        assert f"No world model 'wan'. {WAN} Known: " in said
    assert "No optimizer 'masked-grpo'. `masked-grpo` is in gymnast-wovr" in str(of_config.value)
    with pytest.raises(ConfigError, match="`wovr` is in gymnast-wovr"):
        check_sections({"wovr": {}})


def test_presets_and_commands_are_told() -> None:
    needs_absent("gymnast-metaworld", "gymnast-remote")
    with pytest.raises(ConfigError, match=r"No preset 'metaworld'\. `metaworld` is in gymnast-metaworld: pip install"):
        find_preset("metaworld")
    said = CliRunner().invoke(cli, ["serve", "runs/x"]).exception
    assert isinstance(said, PluginError) and "No command 'serve'. `serve` is in gymnast-remote: pip" in str(said)
    assert "No such command 'sevre'" in CliRunner().invoke(cli, ["sevre"]).output


def test_a_plugin_to_check_is_told() -> None:
    needs_absent("gymnast-pi0")
    for arguments in (["policy", "pi0"], ["pi0"]):
        assert "`pi0` is in gymnast-pi0" in str(CliRunner().invoke(cli, ["check", *arguments]).exception)


def test_a_path_in_the_place_of_a_preset_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "run-1").mkdir()
    mistyped, name = str(tmp_path / "rnu-1"), presets()[0].name
    with pytest.raises(ConfigError) as missing:
        find_preset(mistyped)
    assert f"{mistyped} is no run folder and no file: nothing is there. Did you mean {tmp_path / 'run-1'}?" in str(
        missing.value
    )
    assert name not in str(missing.value), "a list of presets is no help with a path"
    with pytest.raises(ConfigError, match=r"is a folder, .*It has no config\.yaml\."):
        find_preset(str(tmp_path / "run-1"))
    (tmp_path / "run-1" / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"Give the config in it: .*run-1/config\.yaml\."):
        find_preset(str(tmp_path / "run-1"))
