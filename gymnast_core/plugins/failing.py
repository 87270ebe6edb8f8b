"""Whose fault an exception is that nobody foresaw: the plugin in whose method it was raised, by its name."""

import traceback
from collections.abc import Iterator
from types import FrameType

from gymnast_core.plugins import discovery
from gymnast_core.plugins.discovery import PluginSource

_KINDS = {
    "gymnast.policies": "policy",
    "gymnast.world_models": "world model",
    "gymnast.reward_models": "reward model",
    "gymnast.optimizers": "optimizer",
    "gymnast.datasets": "dataset",
    "gymnast.hooks": "hook plugin",
}


def failure_of_a_plugin(error: BaseException) -> str | None:
    """A sentence that names the innermost component or hook plugin on the way to where `error` was raised, and the
    line; None if there is none, since the fault is ours then. Commands are no components: they are on every way."""
    found = [source for frame in _frames(error) if (source := _source_of(frame)) is not None]
    if not found:
        return None
    source, where = found[-1], traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"The {_KINDS[source.group]} {source.name!r} of {source} failed: {type(error).__name__}: {error} "
        f"({where.filename}:{where.lineno})."
    )


def _frames(error: BaseException) -> Iterator[FrameType]:
    """From the outermost to the one that raised."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame


def _source_of(frame: FrameType) -> PluginSource | None:
    """The plugin whose method, or hook, runs in this frame."""
    installed = discovery.installed()
    owner = frame.f_locals.get("self", frame.f_locals.get("cls"))
    kind = owner if isinstance(owner, type) else type(owner)
    targets = {f"{base.__module__}:{base.__qualname__}" for base in kind.__mro__}
    hook = frame.f_globals.get("__name__") if frame.f_code.co_name.startswith("gymnast_") else None
    for group in _KINDS:
        for sources in installed.get(group, {}).values():
            for source in sources:
                if source.target in targets or (group == "gymnast.hooks" and source.module == hook):
                    return source
    return None
