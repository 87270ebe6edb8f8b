"""The contract of hook plugins: what they may be called, what they may take, and that they survive real data."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from gymnast_core.config import ComponentConfig, LoopConfig, RunConfig, to_yaml
from gymnast_core.errors import PluginError
from gymnast_core.plugins import hookspecs
from gymnast_core.plugins.hooks import HookManager
from gymnast_core.plugins.registry import Registries
from gymnast_core.testing.contract import Contract
from gymnast_core.testing.making import make_rollouts, make_tasks
from gymnast_core.types import Reward

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

    Its hooks are called as in a run of one iteration (made-up rollouts, one of which could not be judged) in a
    temporary folder, but for those that need the user's models or processes (evaluation, trainer).
    """
    contract = Contract(plugin, hookspecs, label=getattr(plugin, "__name__", type(plugin).__name__))
    manager = HookManager()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            manager.add(plugin, "checked")
        except PluginError as error:
            contract.expect(False, "hooks", "hooks and arguments that exist", error)
        deprecations = [f"deprecated, but still called: {warning.message}" for warning in caught]
    callers = manager.get_hookcallers(plugin) or []
    contract.expect(bool(callers), "hooks", "at least one function gymnast_*", "none")
    contract.verified.append(f"{len(callers)} hooks by names and arguments that exist")
    _check_import(contract, plugin)
    _check_registered(contract, manager)
    _check_calls(contract, manager)
    contract.expect(bool(plugin.__doc__), "hooks", "a docstring that says what the plugin does", "none")
    return [*contract.verified, "the plugin is documented", *deprecations]


def _call(contract: Contract, manager: HookManager, hook: str, **arguments: Any) -> list[Any]:
    """What the plugin's implementations return; those that raise are a breach."""
    results = []
    for found in getattr(manager.hook, hook).get_hookimpls():
        with contract.working(hook, "to return"):
            results.append(found.function(**{name: arguments[name] for name in found.argnames}))
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


def _check_registered(contract: Contract, manager: HookManager) -> None:
    known = Registries()
    before = {registry.kind: set(registry.names()) for registry in known}
    _call(contract, manager, "gymnast_register", registries=known)
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


def _check_calls(contract: Contract, manager: HookManager) -> None:
    rollouts = make_rollouts(make_tasks(3, 32), action_dim=2)
    rewards = [Reward(1.0, cost_usd=0.01), Reward(0.0, partial=0.5), Reward(None, error="the judge is away")]
    with tempfile.TemporaryDirectory() as folder:
        part = ComponentConfig("checked")
        loop = LoopConfig(iterations=1, horizon=rollouts[0].horizon)
        config = RunConfig(part, part, part, part, part, loop=loop, output=folder)
        Path(folder, "config.yaml").write_text(to_yaml(config))
        numbers = {"imagined_success": 0.5, "rollouts": 3.0, "unscored": 1.0, "cost_usd": 0.01}
        summary = {"output": folder, "iterations": 1, "updates": 1, "seconds": 1.0}
        steps: Sequence[tuple[str, dict[str, Any]]] = (
            ("gymnast_run_started", {"title": "Check", "step": 0, "total": 1, "unit": "iteration"}),
            ("gymnast_rollouts_done", {"rollouts": rollouts, "step": 0}),
            ("gymnast_rewards_scored", {"rollouts": rollouts, "rewards": rewards, "step": 0}),
            ("gymnast_metrics", {"step": 1, "metrics": numbers}),
            ("gymnast_run_stopped", {}),
            ("gymnast_run_done", {"summary": summary}),
        )
        for hook, arguments in steps:
            with contract.untouched(hook, rollouts=rollouts):
                _call(contract, manager, hook, config=config, **arguments)
        if manager.hook.gymnast_callbacks.get_hookimpls():
            _check_callbacks(contract, _call(contract, manager, "gymnast_callbacks", config=config))
    contract.verified.append("its hooks survive a run in which a rollout could not be judged")


def _check_callbacks(contract: Contract, found: list[Any]) -> None:
    import lightning

    for callbacks in found:
        fine = isinstance(callbacks, list) and all(isinstance(item, lightning.Callback) for item in callbacks)
        contract.expect(fine, "gymnast_callbacks", "a list of lightning.Callback", callbacks)
