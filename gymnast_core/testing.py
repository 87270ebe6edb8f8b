"""Contract checks for plugin authors: raise `ContractError` at the first breach, return what was verified.

>>> from gymnast_core.testing import check_world_model
>>> check_world_model(MyWorldModel(MyWorldModel.Config()), action_dim=7)

Every check takes the component or a function that builds it. It makes its own tasks (uniform noise) unless given
`tasks`: pass two or more that your plugin can work with, e.g. ones of its environment. What the options mean is in the
docstrings of the checks themselves, which are found through the entry-point group `gymnast.checks`.
"""

from collections.abc import Callable
from typing import Any

from gymnast_core import discovery
from gymnast_core.errors import PluginError
from gymnast_core.interfaces import Optimizer, Policy, RewardModel, WorldModel


def check_world_model(world_model: WorldModel | Callable[[], WorldModel], **options: Any) -> list[str]:
    """Check `reset`, `step`, `outcomes`. Options: `tasks`, `action_dim`, `image_size` (default: its own)."""
    return find_check("world model")(world_model, **options)


def check_policy(policy: Policy | Callable[[], Policy], **options: Any) -> list[str]:
    """Check `act`, `evaluate`, `save`. Options: `tasks`, `image_size`, `proprio_dim`, `tolerance` (nats), `reload`."""
    return find_check("policy")(policy, **options)


def check_reward_model(reward_model: RewardModel | Callable[[], RewardModel], **options: Any) -> list[str]:
    """Check `score`. Options: `tasks`, `image_size`, `action_dim`, `deterministic`, `tolerance`."""
    return find_check("reward model")(reward_model, **options)


def check_optimizer(optimizer: Optimizer | Callable[[], Optimizer], **options: Any) -> list[str]:
    """Check `keep`, `advantages`, `loss`, gradient steps. Options: `group_relative`, `scale_invariant`, `tolerance`."""
    return find_check("optimizer")(optimizer, **options)


def find_check(kind: str) -> Callable[..., list[str]]:
    """The check of a kind of plugin, e.g. "world model", with all its options. `PluginError` if there is none."""
    found = discovery.sources("gymnast.checks").get(kind.replace(" ", "-"))
    if not found:
        raise PluginError(f"No check of a {kind} is installed (entry-point group gymnast.checks). Reinstall gymnast.")
    return discovery.load(found[0])
