"""The contract of hook plugins: what they may be called, what they may take, and that they survive real data."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from gymnast_core.config import ComponentConfig, LoopConfig, RunConfig, to_yaml
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError, PluginError
from gymnast_core.interfaces import Parts
from gymnast_core.plain import is_plain
from gymnast_core.plugins import events, hookspecs
from gymnast_core.plugins.hooks import HookManager, tell
from gymnast_core.plugins.registry import Registries
from gymnast_core.testing.component import check_config
from gymnast_core.testing.contract import Contract
from gymnast_core.testing.making import make_rollouts, make_tasks
from gymnast_core.testing.stand_ins import ACTION_DIM, make_parts
from gymnast_core.types import Reward, Rollout

NAME = "checked"
"""What the plugin is called while it is checked."""

HEAVY = ("torch", "lightning", "transformers", "diffusers", "mujoco")
"""Packages that take seconds to import."""
_IMPORTED = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2])
print(json.dumps([name for name in json.loads(sys.argv[3]) if name in sys.modules]))
"""


def check_hooks(plugin: Any) -> list[str]:
    """Check a hook plugin: a module, or an object with methods `gymnast_*`.

    Its hooks, wrappers included, are told of all events of a run of one iteration in a temporary folder: three made-up
    rollouts, one of which could not be judged, and parts that imagine and judge, but know nothing.
    """
    contract = Contract(plugin, hookspecs, label=getattr(plugin, "__name__", type(plugin).__name__))
    manager = HookManager()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            manager.add(plugin, NAME)
        except PluginError as error:
            contract.expect(False, "hooks", "hooks that exist, which take `event` alone", error)
        deprecations = [f"deprecated, but still called: {warning.message}" for warning in caught]
    callers = manager.get_hookcallers(plugin) or []
    contract.expect(bool(callers), "hooks", "at least one function gymnast_*", "none")
    contract.verified.append(f"{len(callers)} hooks that exist, which take `event` alone")
    _check_import(contract, plugin)
    if hasattr(plugin, "Config"):
        _check_section(contract, plugin)
    _check_registered(contract, manager)
    with tempfile.TemporaryDirectory() as folder:
        _check_run(contract, manager, Path(folder))
    contract.expect(bool(plugin.__doc__), "hooks", "a docstring that says what the plugin does", "none")
    return [*contract.verified, "the plugin is documented", *deprecations]


def _tell(contract: Contract, manager: HookManager, hook: str, event: Any) -> list[Any]:
    """What the plugin's implementations return; those that raise are a breach."""
    with contract.working(hook, "to return"):
        results = tell(hook, event, passing=(Exception,), manager=manager)
    if NAME in manager.failed:  # SystemExit, which no `except Exception` stops
        contract.expect(False, hook, "to return", manager.failed[NAME])
    return results


def _check_import(contract: Contract, plugin: Any) -> None:
    if not isinstance(plugin, ModuleType) or plugin.__spec__ is None:
        return
    path = json.dumps([str(folder) for folder in sys.path])
    command = [sys.executable, "-c", _IMPORTED, path, plugin.__name__, json.dumps(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        contract.expect(False, "hooks", "a module that can be imported by its name", done.stderr.strip()[-200:])
    heavy = json.loads(done.stdout.splitlines()[-1])
    wanted = "heavy imports inside functions: the module is imported by every command"
    contract.expect(not heavy, "hooks", wanted, f"an import of {', '.join(heavy)}")
    contract.verified.append("importing it takes no heavy package along")


def _check_section(contract: Contract, plugin: Any) -> None:
    """The section hooks.NAME: documented, and complete for a run that says nothing."""
    check_config(contract, plugin)
    try:
        typed(plugin.Config, {}, "hooks.NAME")
    except ConfigError as error:
        contract.expect(False, "Config", "a default for each field, as most runs have no section hooks.NAME", error)
    contract.verified.append("its section of the config is documented, and has defaults")


def _check_registered(contract: Contract, manager: HookManager) -> None:
    known = Registries()
    before = {registry.kind: set(registry.names()) for registry in known}
    _tell(contract, manager, "gymnast_register", events.Registering(known))
    for registry in known:
        for name in sorted(set(registry.names()) - before[registry.kind]):
            try:
                registry.load(name)
            except PluginError as error:
                contract.expect(False, "gymnast_register", f"the {registry.kind} {name!r} to be usable", error)
            contract.verified.append(f"it registers the {registry.kind} {name!r}")
        for name in sorted(before[registry.kind]):
            clash = len(registry.sources(name)) > 1 and any(not source.version for source in registry.sources(name))
            contract.expect(not clash, "gymnast_register", "a free name", f"{name!r}, which is taken")


def _check_run(contract: Contract, manager: HookManager, folder: Path) -> None:
    """Every event of a run, in its order."""
    tasks = make_tasks(3, 32)
    rollouts = make_rollouts(tasks, action_dim=ACTION_DIM)
    rewards = [Reward(1.0, cost_usd=0.01), Reward(0.0, partial=0.5), Reward(None, error="the judge is away")]
    part = ComponentConfig("checked")
    loop = LoopConfig(iterations=1, horizon=rollouts[0].horizon)
    config = RunConfig(part, part, part, part, part, loop=loop, output=str(folder))
    (folder / "config.yaml").write_text(to_yaml(config))
    parts = make_parts(tasks, config)
    assert parts.policy is not None
    weights = list(parts.policy.parameters())
    results: dict[str, list[Any]] = {}
    for hook, event in _events(config, folder, parts, rollouts, rewards):
        with contract.untouched(hook, rollouts=rollouts, policy=weights):
            results[hook] = _tell(contract, manager, hook, event)
    _check_answers(contract, results)
    contract.verified.append("its hooks survive a run in which a rollout could not be judged")


def _events(
    config: RunConfig, folder: Path, parts: Parts, rollouts: Sequence[Rollout], rewards: Sequence[Reward]
) -> Iterator[tuple[str, Any]]:
    def event(kind: Any, step: int = 0, **fields: Any) -> Any:
        return kind(config=config, folder=folder, step=step, parts=parts, **fields)

    numbers = {"imagined_success": 0.5, "rollouts": 3.0, "unscored": 1.0, "cost_usd": 0.01}
    summary = {"output": str(folder), "iterations": 1, "updates": 1, "seconds": 1.0}
    judged: dict[str, Any] = {"rollouts": rollouts, "rewards": rewards}
    yield "gymnast_callbacks", events.CallbacksWanted(config, folder)
    yield "gymnast_run_started", event(events.RunStarted, title="Check", total=1, unit="iteration")
    yield "gymnast_evaluate", event(events.EvaluationWanted, label="before")
    yield "gymnast_evaluation_done", event(events.EvaluationDone, label="before", world="real", **judged)
    yield "gymnast_rollouts_imagined", event(events.RolloutsImagined, rollouts=rollouts)
    yield "gymnast_rewards_scored", event(events.RewardsScored, **judged)
    yield "gymnast_steer", event(events.SteeringWanted)
    yield "gymnast_iteration_learned", event(events.IterationLearned, 1)
    yield "gymnast_metrics", event(events.StepDone, 1, metrics=numbers)
    yield "gymnast_evaluate", event(events.EvaluationWanted, 1, label="after")
    yield "gymnast_run_stopped", event(events.RunStopped, 1)
    yield "gymnast_run_done", event(events.RunDone, 1, summary=summary)
    yield "gymnast_build_page", events.PageWanted(folder)


def _check_answers(contract: Contract, results: Mapping[str, Sequence[Any]]) -> None:
    """Of the hooks that are asked something."""
    if results["gymnast_callbacks"]:
        import lightning

        for callbacks in results["gymnast_callbacks"]:
            fine = isinstance(callbacks, list) and all(isinstance(item, lightning.Callback) for item in callbacks)
            contract.expect(fine, "gymnast_callbacks", "a list of lightning.Callback", callbacks)
    for numbers in results["gymnast_evaluate"]:
        fine = isinstance(numbers, Mapping) and is_plain(numbers)
        contract.expect(fine, "gymnast_evaluate", "numbers by name, or None", numbers)
    for answer in results["gymnast_steer"]:
        fine = isinstance(answer, events.Steering)
        contract.expect(fine, "gymnast_steer", "an events.Steering, or None", answer)
    for page in results["gymnast_build_page"]:
        fine = isinstance(page, Path) and page.is_file()
        contract.expect(fine, "gymnast_build_page", "the path of the page that it wrote, or None", page)
