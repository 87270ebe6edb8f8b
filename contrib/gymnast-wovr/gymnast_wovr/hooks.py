"""Hooks of a training with a co-evolving world model: it is refined between iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymnast_core.plugins.events import CallbacksWanted


def gymnast_callbacks(event: CallbacksWanted) -> list[Any]:
    """The callback that refines the world model, if it is a co-evolving one."""
    if event.config.kind != "train" or event.config.world_model.name != "co-evolving":
        return []
    from gymnast_wovr.callback import CoEvolution

    return [CoEvolution()]
