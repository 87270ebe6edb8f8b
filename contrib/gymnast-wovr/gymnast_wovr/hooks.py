"""Hooks of a training with a co-evolving world model: it is refined between iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymnast_core.config import RunConfig

    from gymnast_wovr.callback import CoEvolution

_callbacks: list[CoEvolution] = []
"""Of the training that is going on in this process; empty without a co-evolving world model."""


def gymnast_callbacks(config: RunConfig) -> list[Any]:
    """The callback that refines the world model, if it is a co-evolving one."""
    _callbacks.clear()
    if config.world_model.name == "co-evolving":
        from gymnast_wovr.callback import CoEvolution

        _callbacks.append(CoEvolution())
    return list(_callbacks)


def gymnast_run_started(config: Any) -> None:
    """Tell the callback where the run is kept and which world model it has."""
    if config.kind == "train":
        for callback in _callbacks:
            from gymnast_wovr.co_evolving import newest_world

            callback.begin(config, newest_world())


def gymnast_run_stopped(config: Any) -> None:
    """Close the environments of the refinements."""
    if config.kind == "train":
        for callback in _callbacks:
            callback.end()
        _callbacks.clear()
