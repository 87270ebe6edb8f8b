"""Contract checks for plugin authors: raise `ContractError` at the first breach, return what was verified.

>>> check_world_model(MyWorldModel(MyWorldModel.Config()), action_dim=7)

Each takes the component or a function that builds it, and makes its own tasks (uniform noise) unless given `tasks`: two
or more that your plugin can work with. The checks themselves are found through entry points of `gymnast.checks`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from gymnast_core.errors import PluginError
from gymnast_core.plugins import discovery


def find_check(kind: str) -> Callable[..., list[str]]:
    """The check of a kind of plugin, e.g. "world model", with all its options. `PluginError` if there is none."""
    found = discovery.sources("gymnast.checks").get(kind.replace(" ", "-"), [])
    if len(found) != 1:
        places = " and ".join(map(str, found)) or "none is installed; reinstall gymnast"
        raise PluginError(f"There must be one check of {kind} plugins (entry-point group gymnast.checks): {places}.")
    return discovery.load(found[0])


def _check(kind: str, plugin: Any, **options: Any) -> list[str]:
    return find_check(kind)(plugin, **options)


check_world_model = partial(_check, "world model")
"""Check reset, step, outcomes, save. Options: `tasks`, `action_dim`, `image_size` (default: its own), `reload`."""
check_policy = partial(_check, "policy")
"""Check act, evaluate, save. Options: `tasks`, `image_size`, `proprio_dim`, `tolerance`, `reload`, `device`."""
check_reward_model = partial(_check, "reward model")
"""Check score, submit. Options: `tasks`, `image_size`, `action_dim`, `deterministic`, `unjudgeable`, `tolerance`."""
check_optimizer = partial(_check, "optimizer")
"""Check keep, advantages, loss, gradient steps. Options: `group_relative`, `scale_invariant`, `tolerance`."""
check_dataset = partial(_check, "dataset")
"""Check tasks and episodes. Option: `count`, how many of the first and last items are read."""
check_hooks = partial(_check, "hooks")
"""Check a hook module: names, arguments, imports, and what its hooks do in a run of one iteration."""
