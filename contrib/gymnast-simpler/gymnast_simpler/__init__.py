"""SIMPLER for gymnast. Importing it registers `gymnast/Simpler-v0` and loads neither the simulator nor gymnast."""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

ID = "gymnast/Simpler-v0"


def register_environments() -> None:
    """Register `gymnast/Simpler-v0` with Gymnasium, once.

    Gymnasium 1.x loads no plugins by itself: whoever finds us by our `gymnasium.envs` entry point calls this, and
    `gymnasium.make("gymnast_simpler:gymnast/Simpler-v0")` imports us, which does the same.
    """
    if ID not in registry:
        register(id=ID, entry_point="gymnast_simpler.environment:SimplerEnvironment")


register_environments()
