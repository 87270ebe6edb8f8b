import inspect
from types import SimpleNamespace

import pytest

from gymnast_core.errors import ConfigError, PluginError
from gymnast_core.plugins import compose, hooks, hookspecs

SPECS = [name for name in dir(hookspecs) if name.startswith("gymnast_")]


@pytest.mark.parametrize("name", SPECS)
def test_every_hook_is_documented_and_typed(name):
    function = getattr(hookspecs, name)
    assert len(inspect.getdoc(function) or "") > 40
    assert all(item.annotation is not item.empty for item in inspect.signature(function).parameters.values())


def test_hooks_need_no_marker_and_may_take_fewer_arguments():
    manager, seen = hooks.HookManager(), []
    manager.add(SimpleNamespace(gymnast_rewards_scored=lambda rewards: seen.append(rewards)), "plain")
    manager.hook.gymnast_rewards_scored(config=None, rollouts=[], rewards=[1], step=0)
    assert seen == [[1]]


@pytest.mark.parametrize(
    "plugin",
    [
        SimpleNamespace(gymnast_rewards_score=lambda rewards: None),
        SimpleNamespace(gymnast_run_done=lambda config, sumary: None, gymnast_callbacks=lambda config: []),
    ],
)
def test_a_misspelt_hook_or_argument_is_refused_and_leaves_nothing(plugin):
    manager = hooks.HookManager()
    with pytest.raises(PluginError, match=r"'typo' was refused.*Hooks: .*gymnast_run_done"):
        manager.add(plugin, "typo")
    assert not manager.has_plugin("typo")
    manager.add(SimpleNamespace(gymnast_callbacks=lambda config: ["fine"]), "fine")
    assert manager.hook.gymnast_callbacks(config=None) == [["fine"]]


def test_broken_hook_plugins_do_not_stop_the_others(site_packages, fresh):
    good = "def gymnast_register(registries):\n    registries.policies.register('from-hook', dict)\n"
    modules = {
        "core_hook_good.py": good,
        "core_hook_typo.py": "def gymnast_registr(registries): pass",
        "core_hook_broken.py": "import no_such_dependency",
        "core_hook_raises.py": "def gymnast_register(registries): raise RuntimeError('late')",
    }
    names = "\n".join(f"{name[10:-3]} = {name[:-3]}" for name in modules)
    site_packages.add("hooked", f"[gymnast.hooks]\n{names}\n", modules)
    assert "from-hook" in compose.registries().policies.names()
    broken = hooks.plugin_manager().broken
    assert {"typo", "broken", "raises"} <= set(broken)
    assert "no_such_dependency" in str(broken["broken"])
    assert "late" in str(broken["raises"])


def test_a_hook_that_fails_does_not_stop_the_run_or_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    class Fails:
        def gymnast_metrics(self, step: int) -> None:
            raise OSError("disk full")

    class Listens:
        def gymnast_metrics(self, step: int) -> None:
            told.append(step)

    manager = hooks.HookManager()
    manager.add(Fails(), "fails")
    manager.add(Listens(), "listens")
    monkeypatch.setattr(hooks, "plugin_manager", lambda: manager)
    tell = hooks.Notify()
    tell.gymnast_metrics(config=None, step=1, metrics={})
    tell.gymnast_metrics(config=None, step=2, metrics={})
    assert told == [1, 2]
    assert "disk full" in str(manager.broken["fails"])


def test_a_hook_that_is_asked_may_fail_too_but_the_users_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails:
        def gymnast_callbacks(self) -> list[str]:
            raise OSError("disk full")

    class Answers:
        def gymnast_callbacks(self) -> list[str]:
            return ["callback"]

    class Refuses:
        def gymnast_callbacks(self) -> list[str]:
            raise ConfigError("no such option")

    manager = hooks.HookManager()
    manager.add(Fails(), "fails")
    manager.add(Answers(), "answers")
    monkeypatch.setattr(hooks, "plugin_manager", lambda: manager)
    assert hooks.call_each("gymnast_callbacks", passing=(ConfigError,), config=None) == [["callback"]]
    assert "disk full" in str(manager.broken["fails"])
    manager.add(Refuses(), "refuses")
    with pytest.raises(ConfigError, match="no such option"):
        hooks.call_each("gymnast_callbacks", passing=(ConfigError,), config=None)
