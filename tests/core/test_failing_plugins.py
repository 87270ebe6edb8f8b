"""An exception that a plugin's method raises during a command is one sentence that names the plugin."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from gymnast_core import cli as command_line
from gymnast_core.plugins.failing import failure_of_a_plugin

ENTRY_POINTS = "[gymnast.policies]\nclumsy = clumsy_policy:Clumsy\n[gymnast.hooks]\nalarm = clumsy_alarm\n"
FILES = {
    "clumsy_policy.py": (
        "class Clumsy:\n"
        "    def act(self):\n"
        "        return {}['weights']\n"
        "    @classmethod\n"
        "    def needs(cls):\n"
        "        return int('many')\n"
    ),
    "clumsy_alarm.py": "def gymnast_metrics(event):\n    return 1 / 0\n\ndef helper():\n    return 1 / 0\n",
}


@pytest.fixture
def clumsy(site_packages: Any, fresh: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    site_packages.add("clumsy", ENTRY_POINTS, FILES)
    for name in ("clumsy_policy", "clumsy_alarm"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module


def raised(call: Any, *arguments: Any) -> Exception:
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_the_plugin_its_distribution_and_the_line_are_named(clumsy: Any) -> None:
    policy = clumsy("clumsy_policy").Clumsy
    said = failure_of_a_plugin(raised(policy().act))
    assert said is not None and said.startswith("The policy 'clumsy' of clumsy ")
    assert "(clumsy_policy:Clumsy) failed: KeyError: 'weights' (" in said and said.endswith("clumsy_policy.py:3).")
    assert "ValueError" in str(failure_of_a_plugin(raised(policy.needs)))


def test_a_subclass_is_the_plugin_that_it_extends(clumsy: Any) -> None:
    kind = type("Own", (clumsy("clumsy_policy").Clumsy,), {})
    assert "The policy 'clumsy'" in str(failure_of_a_plugin(raised(kind().act)))


def test_a_hook_is_named_and_a_function_beside_it_is_not(clumsy: Any) -> None:
    module = clumsy("clumsy_alarm")
    assert "The hook plugin 'alarm' of clumsy" in str(failure_of_a_plugin(raised(module.gymnast_metrics, None)))
    assert failure_of_a_plugin(raised(module.helper)) is None


def test_what_no_plugin_raised_is_ours(clumsy: Any) -> None:
    assert failure_of_a_plugin(raised(int, "many")) is None


def test_a_command_ends_with_one_sentence_below_the_traceback(
    clumsy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = clumsy("clumsy_policy").Clumsy()
    monkeypatch.setattr(command_line, "cli", lambda **options: policy.act())
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert told.startswith("Traceback") and told.splitlines()[-1].startswith("Error: The policy 'clumsy' of clumsy")


def test_other_exceptions_pass_as_they_are(clumsy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "cli", lambda **options: int("many"))
    with pytest.raises(ValueError, match="many"):
        command_line.main()
