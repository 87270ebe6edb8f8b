"""Meta-World's 50 manipulation tasks as one Gymnasium environment, `MetaWorld-v0`, with instructions and experts.

`gymnasium.make("gymnast_metaworld:MetaWorld-v0", task="door-open")` works in any interpreter that has metaworld and
gymnasium; nothing of gymnast or torch is imported. Importing this package registers the environment and loads no
simulator.
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

_ID = "MetaWorld-v0"


def register_environments() -> None:
    """Register `MetaWorld-v0` with Gymnasium, once."""
    if _ID not in registry:
        register(id=_ID, entry_point="gymnast_metaworld.environment:MetaWorld")


register_environments()
