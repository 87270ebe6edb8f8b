"""Contract checks for plugin authors: raise `ContractError` at the first breach, return what was verified.

>>> check_world_model(MyWorldModel(MyWorldModel.Config()), action_dim=7)

Each takes the component or a function that builds it, and makes its own tasks (uniform noise) unless given `tasks`: two
or more that your plugin can work with. `gymnast check` uses the same functions.
"""

from collections.abc import Callable, Mapping

from gymnast_core.testing.dataset import check_dataset
from gymnast_core.testing.hooks import check_hooks
from gymnast_core.testing.optimizer import check_optimizer
from gymnast_core.testing.policy import check_policy
from gymnast_core.testing.reward_model import check_reward_model
from gymnast_core.testing.world_model import check_world_model

CHECKS: Mapping[str, Callable[..., list[str]]] = {
    "world model": check_world_model,
    "policy": check_policy,
    "reward model": check_reward_model,
    "optimizer": check_optimizer,
    "dataset": check_dataset,
    "hooks": check_hooks,
}
"""The check of each kind of plugin."""

__all__ = [
    "CHECKS",
    "check_dataset",
    "check_hooks",
    "check_optimizer",
    "check_policy",
    "check_reward_model",
    "check_world_model",
]
