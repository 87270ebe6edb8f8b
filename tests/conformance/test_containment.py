"""Broken plugins of every group stop no other, and `gymnast plugins` says what is wrong and what to type."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from gymnast_core.cli import cli
from gymnast_core.plugins import compose, hooks
from gymnast_core.plugins.discovery import PluginSource
from gymnast_listing.advice import advice

ENTRIES = """
[gymnast.policies]
needy = containment_needy:Needy
grpo-like = containment_policies:Old
[gymnast.policy]
singular = containment_policies:Old
[gymnast.hooks]
falls = containment_falls
lacks = containment_lacks
[gymnast.commands]
train = containment_command:run
no-click = containment_command:run
away = containment_away:run
[gymnast.presets]
gone = containment_gone
bytes = containment_presets
[gymnast.datasets]
absent = containment_absent:X
"""
METADATA = """Metadata-Version: 2.1
Name: Containment
Version: 2.5
Requires-Dist: gymnast
Requires-Dist: no-such-dependency (>=3)
Requires-Dist: scikit-unlearn>=1.2; python_version >= "3"
Requires-Dist: only-for-tests; extra == "dev"
"""
MODULES = {
    "containment_needy.py": "import no_such_dependency.deep",
    "containment_lacks.py": "import unlearn",
    "containment_falls.py": "def gymnast_register(event):\n    raise SystemExit('gone')\n",
    "containment_command.py": "def run():\n    pass\n",
    "containment_policies.py": "from gymnast_core.interfaces import Policy\nclass Old(Policy):\n    pass\n",
    "containment_presets/presets/latin.yaml": "# Caf\xe9\nkind: train\n",
}


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    info = tmp_path / "containment-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRIES)
    for name, source in MODULES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.encode("latin-1"))
    (tmp_path / "containment_presets" / "presets" / "dangling.yaml").symlink_to(tmp_path / "nowhere.yaml")
    monkeypatch.syspath_prepend(str(tmp_path))
    for remembered in (hooks.plugin_manager, compose.registries):
        remembered.cache_clear()
    yield
    for remembered in (hooks.plugin_manager, compose.registries):
        remembered.cache_clear()


def listed(*options: str) -> tuple[dict[tuple[str, str], list[str]], dict[str, str]]:
    """Rows by kind and name, and what is said about those that are broken."""
    done = CliRunner().invoke(cli, ["plugins", *options], catch_exceptions=False)
    assert done.exit_code == 0
    rows, *reasons = done.output.split("\n\n")
    table = {tuple(line.split("\t")[:2]): line.split("\t") for line in rows.splitlines()}
    return table, {reason.partition(" of ")[0]: reason for reason in reasons}  # type: ignore[return-value]


def test_what_shows_without_importing_anything(broken: None) -> None:
    rows, reasons = listed()
    assert rows["optimizer", "grpo"][-1] == "ok"
    assert rows["policy", "needy"][2:] == ["containment 2.5", "containment_needy:Needy", "", "ok"]
    expected = {
        "dataset absent": "no module 'containment_absent'",
        "hooks falls": "SystemExit('gone')",
        "hooks lacks": "Try: pip install 'no-such-dependency>=3' 'scikit-unlearn>=1.2'",
        "command train": "is a command of gymnast itself",
        "command away": "no module 'containment_away': reinstall containment",
        "presets gone": "no module 'containment_gone'",
        "gymnast.policy singular": "Did you mean 'gymnast.policies'?",
    }
    for name, words in expected.items():
        assert words in reasons[name], reasons[name]
        assert "containment 2.5" in reasons[name]


def test_what_shows_when_everything_is_imported(broken: None) -> None:
    rows, reasons = listed("--load")
    assert rows["policy", "openvla-oft"][-1] == "ok"
    assert "import no_such_dependency.deep" in reasons["policy needy"]
    assert reasons["policy needy"].rstrip().endswith("Try: pip install 'no-such-dependency>=3'")
    assert "is not a click command" in reasons["command no-click"]
    old = reasons["policy grpo-like"]
    assert "says no `api_version`, as plugins of API 1 did; this gymnast has 2" in old
    assert "docs/api-2.md" in old
    assert "`api_version = 2`" in old
    assert "`pip install --upgrade containment`" in old
    assert "`pip install 'gymnast<0.2.0'`" in old


def test_no_command_is_lost(broken: None) -> None:
    helped = CliRunner().invoke(cli, ["--help"], catch_exceptions=False)
    assert helped.exit_code == 0
    assert "Reinforcement learning of a policy" in helped.output
    assert "it is not a click command" in " ".join(helped.output.split())
    presets = CliRunner().invoke(cli, ["presets"], catch_exceptions=False)
    assert "tabletop\tgymnast train" in presets.output
    assert "latin\tgymnast train\tcontainment\tCaf\N{REPLACEMENT CHARACTER}" in presets.output


def test_a_module_that_nothing_is_known_about_is_itself_the_advice() -> None:
    source = PluginSource("gymnast.policies", "x", "stranger.policy:X", "no-such-distribution", "1")
    assert advice("ModuleNotFoundError: No module named 'unheard_of.sub'", [source]) == "pip install unheard_of"
    own = advice("ModuleNotFoundError: No module named 'stranger.policy'", [source])
    assert own == "pip install --force-reinstall --no-deps no-such-distribution"
    assert advice("ZeroDivisionError: division by zero", [source]) is None
