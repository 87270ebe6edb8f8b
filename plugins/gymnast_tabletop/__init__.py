"""The embedded default environment: blocks on a table, pushed by instruction.

Importing it registers `gymnast/Tabletop-v0` with Gymnasium and loads neither the simulator nor torch.
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

_ID = "gymnast/Tabletop-v0"


def register_environments() -> None:
    """Register `gymnast/Tabletop-v0` with Gymnasium, once.

    Gymnasium 1.x loads no plugins by itself: whoever finds us by our `gymnasium.envs` entry point calls this,
    and `gymnasium.make("gymnast_tabletop:gymnast/Tabletop-v0")` imports us, which does the same.
    """
    if _ID not in registry:
        register(id=_ID, entry_point="gymnast_tabletop.environment:TabletopEnvironment")


register_environments()
