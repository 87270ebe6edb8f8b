"""Hook plugins: what they may be, how they are told, and that a broken one stops nobody."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest

from gymnast_core.errors import ConfigError, PluginError, StorageError
from gymnast_core.plugins import events, hooks, hookspecs
from gymnast_core.plugins.hooks import HookManager, hookimpl, tell

SPECS = [name for name in dir(hookspecs) if name.startswith("gymnast_")]
EVENT = events.PageWanted(Path("run"))


def module(**members: Any) -> SimpleNamespace:
    return SimpleNamespace(**members)


def managing(**plugins: Any) -> HookManager:
    manager = HookManager()
    for name, plugin in plugins.items():
        manager.add(plugin, name)
    return manager


@pytest.mark.parametrize("name", SPECS)
def test_every_hook_is_documented_and_takes_an_event(name: str) -> None:
    function = getattr(hookspecs, name)
    assert len(inspect.getdoc(function) or "") > 15
    assert list(inspect.signature(function).parameters) == ["event"]
    hints = get_type_hints(function, {**vars(hookspecs), "events": events})
    assert is_dataclass(hints["event"]) and "return" in hints


def test_hooks_need_no_marker_and_may_take_nothing() -> None:
    seen: list[Any] = []
    manager = managing(
        plain=module(gymnast_run_done=lambda event: seen.append(event)),
        silent=module(gymnast_run_done=lambda: seen.append("called")),
    )
    assert tell("gymnast_run_done", EVENT, manager=manager) == []
    assert seen == ["called", EVENT]  # as pluggy has it: the last to come is the first to be told


@pytest.mark.parametrize(
    "plugin",
    [
        module(gymnast_rewards_score=lambda event: None),
        module(gymnast_run_done=lambda event, summary: None, gymnast_callbacks=lambda event: []),
        module(gymnast_rewards_scored=lambda config, rollouts, rewards, step: None),
    ],
    ids=["misspelt", "an argument too many", "API 1"],
)
def test_a_misspelt_hook_or_argument_is_refused_and_leaves_nothing(plugin: Any) -> None:
    manager = HookManager()
    with pytest.raises(PluginError, match=r"'typo' was refused.*A hook takes `event` alone.*Hooks: .*gymnast_run_done"):
        manager.add(plugin, "typo")
    assert not manager.has_plugin("typo")
    manager.add(module(gymnast_callbacks=lambda event: ["fine"]), "fine")
    assert tell("gymnast_callbacks", EVENT, manager=manager) == [["fine"]]


def test_broken_hook_plugins_do_not_stop_the_others(site_packages: Any, fresh: None) -> None:
    entry = (
        "[gymnast.hooks]\nsound = core_sound\ncrash = core_crash\ngone = core_gone\ntypo = core_typo\n"
        "register = core_register\n"
    )
    modules = {
        "core_sound.py": "def gymnast_callbacks(event): return ['sound']",
        "core_crash.py": "1 / 0",
        "core_typo.py": "def gymnast_callback(event): return []",
        "core_register.py": "def gymnast_register(event): event.registries.policies.register('mine', int)",
    }
    site_packages.add("listeners", entry, modules)
    manager = hooks.plugin_manager()
    assert {"crash", "gone", "typo"} <= set(manager.broken)
    assert "ZeroDivisionError" in str(manager.broken["crash"])
    assert ["sound"] in tell("gymnast_callbacks", events.CallbacksWanted(SimpleNamespace(kind="fit"), Path()))
    from gymnast_core.plugins.registry import registries

    assert "mine" in registries().policies.names()


def test_a_hook_that_fails_stops_neither_the_run_nor_the_others() -> None:
    told: list[Any] = []

    def fail(event: Any) -> None:
        raise OSError("disk full")

    def leave(event: Any) -> None:
        raise SystemExit(3)

    manager = managing(
        fails=module(gymnast_metrics=fail),
        leaves=module(gymnast_metrics=leave),
        hears=module(gymnast_metrics=lambda event: told.append(event)),
    )
    for _ in range(2):
        tell("gymnast_metrics", EVENT, manager=manager)
    assert told == [EVENT, EVENT]
    assert "disk full" in str(manager.failed["fails"])
    assert "gymnast_metrics of the hook plugin 'leaves' failed: SystemExit(3)" in str(manager.failed["leaves"])


def test_errors_that_are_to_pass_do_and_others_do_not() -> None:
    def fail(event: Any) -> None:
        raise OSError("disk full")

    def refuse(event: Any) -> None:
        raise ConfigError("no such option")

    manager = managing(fails=module(gymnast_callbacks=fail), answers=module(gymnast_callbacks=lambda event: ["one"]))
    assert tell("gymnast_callbacks", EVENT, passing=(ConfigError,), manager=manager) == [["one"]]
    assert "disk full" in str(manager.failed["fails"])
    manager.add(module(gymnast_callbacks=refuse), "refuses")
    with pytest.raises(ConfigError, match="no such option"):
        tell("gymnast_callbacks", EVENT, passing=(ConfigError,), manager=manager)
    with pytest.raises(OSError, match="disk full"):
        tell("gymnast_callbacks", EVENT, passing=(Exception,), manager=managing(f=module(gymnast_callbacks=fail)))


# ---------------------------------------------------------------- wrappers


def wrapper(old: bool, body: Callable[[Any], Iterator[Any]], **options: Any) -> Any:
    return module(gymnast_evaluate=hookimpl(**({"hookwrapper": True} if old else {"wrapper": True}), **options)(body))


def test_wrappers_run_around_the_others_and_see_their_results() -> None:
    order: list[Any] = []

    def new(event: Any) -> Iterator[Any]:
        order.append("new before")
        results = yield
        order.append(("new after", list(results)))
        return results

    def old(event: Any) -> Iterator[Any]:
        order.append("old before")
        outcome = yield
        order.append(("old after", list(outcome.get_result())))

    def plain(event: Any) -> str:
        order.append("plain")
        return "number"

    plugin = module(gymnast_evaluate=plain)
    manager = managing(first=wrapper(False, new), second=wrapper(True, old), plain=plugin)
    assert tell("gymnast_evaluate", EVENT, manager=manager) == ["number"]
    inner, outer = ("new", "old") if order[0] == "old before" else ("old", "new")
    wanted = [f"{outer} before", f"{inner} before", "plain"]
    assert order == [*wanted, (f"{inner} after", ["number"]), (f"{outer} after", ["number"])]


def changed_new(event: Any) -> Iterator[Any]:
    results = yield
    return [f"{result}!" for result in results]


def changed_old(event: Any) -> Iterator[Any]:
    outcome = yield
    outcome.force_result([f"{result}!" for result in outcome.get_result()])


@pytest.mark.parametrize(("old", "body"), [(False, changed_new), (True, changed_old)], ids=["new", "old"])
def test_a_wrapper_may_change_the_results(old: bool, body: Any) -> None:
    manager = managing(changes=wrapper(old, body), plain=module(gymnast_evaluate=lambda event: "number"))
    assert tell("gymnast_evaluate", EVENT, manager=manager) == ["number!"]


def fails_before(event: Any) -> Iterator[Any]:
    raise OSError("before")
    yield


def fails_after(event: Any) -> Iterator[Any]:
    yield
    raise OSError("after")


def yields_twice(event: Any) -> Iterator[Any]:
    yield
    yield


def never_yields(event: Any) -> Iterator[Any]:
    return
    yield


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
@pytest.mark.parametrize(
    ("body", "said"),
    [(fails_before, "before"), (fails_after, "after"), (yields_twice, "yields once"), (never_yields, "StopIteration")],
)
def test_a_wrapper_that_fails_is_left_out(old: bool, body: Any, said: str) -> None:
    manager = managing(
        broken=wrapper(old, body),
        sound=wrapper(False, changed_new),
        plain=module(gymnast_evaluate=lambda event: "number"),
    )
    assert tell("gymnast_evaluate", EVENT, manager=manager) == ["number!"]
    assert said in str(manager.failed["broken"])


def test_a_hook_that_fails_inside_wrappers_is_contained_too() -> None:
    def fail(event: Any) -> None:
        raise OSError("disk full")

    manager = managing(
        wraps=wrapper(False, changed_new),
        fails=module(gymnast_evaluate=fail),
        plain=module(gymnast_evaluate=lambda event: "number"),
    )
    assert tell("gymnast_evaluate", EVENT, manager=manager) == ["number!"]


def test_errors_that_are_to_pass_leave_wrappers_too() -> None:
    manager = managing(broken=wrapper(False, fails_after))
    with pytest.raises(OSError, match="after"):
        tell("gymnast_evaluate", EVENT, passing=(OSError,), manager=manager)


def test_an_order_is_kept() -> None:
    last = module(gymnast_evaluate=hookimpl(trylast=True)(lambda event: "last"))
    first = module(gymnast_evaluate=hookimpl(tryfirst=True)(lambda event: "first"))
    manager = managing(last=last, some=module(gymnast_evaluate=lambda event: "some"), first=first)
    assert tell("gymnast_evaluate", EVENT, manager=manager) == ["first", "some", "last"]


# ---------------------------------------------------------------- hooks.NAME of a config


@dataclass(frozen=True)
class Loud:
    """How loud."""

    level: int = 3
    """Of 10."""

    def __post_init__(self) -> None:
        if self.level > 10:
            raise ValueError(f"level is {self.level}; there are 10")


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> HookManager:
    plain = module(gymnast_metrics=lambda event: None)
    manager = managing(alarm=module(gymnast_metrics=lambda event: None, Config=Loud), plain=plain)
    manager.mark_broken("crash", "The hook plugin 'crash' cannot be imported: ZeroDivisionError")
    monkeypatch.setattr(hooks, "plugin_manager", lambda: manager)
    return manager


def test_sections_that_plugins_take_are_accepted(sections: HookManager) -> None:
    hooks.check_sections({})
    hooks.check_sections({"alarm": {"level": 7}})


@pytest.mark.parametrize(
    ("section", "values", "error", "said"),
    [
        ("alram", {}, ConfigError, "hooks.alram: No section 'alram'. Did you mean 'alarm'? Known: alarm."),
        ("plain", {"level": 1}, ConfigError, "hooks.plain: No section 'plain'"),
        ("alarm", {"levle": 1}, ConfigError, "hooks.alarm.levle: No key 'levle'. Did you mean 'level'?"),
        ("alarm", {"level": "high"}, ConfigError, "hooks.alarm.level"),
        ("alarm", {"level": 11}, ConfigError, "hooks.alarm: level is 11; there are 10"),
        ("crash", {}, PluginError, "'crash' cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_section_that_nobody_takes_is_one_error(
    sections: HookManager, section: str, values: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        hooks.check_sections({section: values})
    assert said in str(caught.value)


def test_an_event_knows_its_section() -> None:
    event = events.StepDone(SimpleNamespace(hooks={"alarm": {"level": 5}}), Path())
    assert event.section("alarm", Loud) == Loud(5)
    assert event.section("other", Loud) == Loud()
    assert events.StepDone(SimpleNamespace(), Path()).section("alarm", Loud) == Loud()


def test_a_run_that_cannot_be_written_down_ends() -> None:
    def fails(event: Any) -> None:
        raise StorageError("metrics.csv cannot be written")

    manager = managing(recorder=module(gymnast_metrics=fails), other=module(gymnast_metrics=lambda event: 1))
    with pytest.raises(StorageError, match=r"metrics\.csv"):
        tell("gymnast_metrics", EVENT, manager=manager)
    assert not manager.broken and not manager.failed


def test_a_hook_that_failed_once_bars_no_later_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(event: Any) -> None:
        raise OSError("disk full")

    manager = managing(alarm=module(gymnast_metrics=fail, Config=Loud))
    monkeypatch.setattr(hooks, "plugin_manager", lambda: manager)
    tell("gymnast_metrics", EVENT, manager=manager)
    assert manager.failed
    hooks.check_sections({"alarm": {"level": 5}})


def test_the_numbers_of_a_step_are_read_only() -> None:
    numbers = {"rollouts": 16.0}
    event = events.StepDone(SimpleNamespace(), Path(), metrics=numbers)
    with pytest.raises(AttributeError):
        event.metrics.clear()  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        event.metrics["rollouts"] = 1.0  # type: ignore[index]
    assert dict(event.metrics) == numbers == {"rollouts": 16.0}
