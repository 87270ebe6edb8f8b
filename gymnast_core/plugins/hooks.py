"""The plugin manager: loads hook plugins, calls them, and keeps a broken one from stopping the others."""

import dataclasses
import inspect
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import pluggy

from gymnast_core.errors import ConfigError, PluginError, StorageError, unknown_name
from gymnast_core.plugins import discovery, hookspecs
from gymnast_core.plugins.elsewhere import where_from

hookimpl = pluggy.HookimplMarker("gymnast")
"""Optional marker for hook functions, for pluggy's options (`tryfirst`, `wrapper`, ...)."""

logger = logging.getLogger(__name__)


class HookManager(pluggy.PluginManager):
    """Every function `gymnast_*` of a plugin is a hook, marked or not, so that none is silently ignored."""

    def __init__(self) -> None:
        super().__init__("gymnast")
        self.add_hookspecs(hookspecs)
        self.broken: dict[str, PluginError] = {}
        """Plugins that were refused, by name: they take part in nothing."""
        self.failed: dict[str, PluginError] = {}
        """Plugins of which a hook raised, by name, and what the latest one did; they go on taking part."""

    def parse_hookspec_opts(self, module: Any, name: str) -> Any:
        return super().parse_hookspec_opts(module, name) or ({} if name.startswith("gymnast_") else None)

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        options = super().parse_hookimpl_opts(plugin, name)
        if options is None and name.startswith("gymnast_") and inspect.isroutine(getattr(plugin, name, None)):
            return {}
        return options

    def add(self, plugin: Any, name: str) -> None:
        """Register a plugin. Raises `PluginError` if a hook is misspelt or takes unknown arguments."""
        try:
            self.register(plugin, name)
            self.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            if self.get_plugin(name) is plugin:
                self.unregister(plugin)
            reason = " ".join(str(error).split())
            known = ", ".join(hook for hook in dir(hookspecs) if hook.startswith("gymnast_"))
            raise PluginError(
                f"The hook plugin {name!r} was refused: {reason}. A hook takes `event` alone (plugin API 2). Hooks: "
                f"{known}."
            ) from error

    def mark_broken(self, name: str, reason: str) -> None:
        self.broken[name] = PluginError(reason)
        logger.warning("%s", reason)

    def mark_failed(self, name: str, reason: str) -> None:
        self.failed[name] = PluginError(reason)
        logger.warning("%s", reason)


@lru_cache(maxsize=1)
def plugin_manager() -> HookManager:
    """The manager with every `gymnast.hooks` plugin; those refused are logged and kept in `.broken`."""
    manager = HookManager()
    for name, found in sorted(discovery.sources("gymnast.hooks").items()):
        try:
            if len(found) > 1:
                places = " and ".join(map(str, found))
                raise PluginError(f"Two hook plugins are called {name!r}: {places}. Uninstall or rename one of them.")
            manager.add(discovery.load(found[0]), name)
        except PluginError as error:
            manager.mark_broken(name, str(error))
        except (Exception, SystemExit) as error:
            manager.mark_broken(name, f"The hook plugin {name!r} of {found[0]} cannot be imported: {error!r}")
    return manager


def tell(
    hook: str, event: Any, *, passing: tuple[type[Exception], ...] = (), manager: HookManager | None = None
) -> list[Any]:
    """What a hook's plugins return for an event, without Nones, called one by one; wrappers run around the others.

    Errors of a type in `passing` pass, and a `StorageError`: a run that cannot be written down goes on when it can, and
    not with gaps. Others are logged and stop nobody: what only listens must not cost anyone a run.
    The plugins are those of `manager`, by default all that are installed.
    """
    manager = manager or plugin_manager()
    ending: tuple[type[Exception], ...] = (StorageError, *passing)
    implementations = list(reversed(getattr(manager.hook, hook).get_hookimpls()))

    def run(function: Callable[..., Any], found: pluggy.HookImpl, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except ending:
            raise
        except (Exception, SystemExit) as error:
            manager.mark_failed(found.plugin_name, f"{hook} of the hook plugin {found.plugin_name!r} failed: {error!r}")
            logger.debug("Traceback:", exc_info=True)
            return None

    def ask(found: pluggy.HookImpl) -> Any:
        return found.function(event) if found.argnames else found.function()

    wrapping = [found for found in implementations if found.wrapper or found.hookwrapper]
    entered = [(found, generator) for found in wrapping if (generator := run(_enter, found, ask, found)) is not None]
    plain = [run(ask, found, found) for found in implementations if found not in wrapping]
    results = [result for result in plain if result is not None]
    for found, generator in reversed(entered):
        changed = run(_leave, found, generator, results, found.hookwrapper)
        results = results if changed is None else changed
    return results


def _enter(ask: Callable[[Any], Any], found: Any) -> Any:
    """Run a wrapper up to its `yield`."""
    generator = ask(found)
    next(generator)
    return generator


def _leave(generator: Any, results: list[Any], old_style: bool) -> list[Any]:
    """Run the rest of a wrapper: it is sent the results and may return others."""
    outcome = pluggy.Result.from_call(lambda: results)
    try:
        generator.send(outcome if old_style else results)
    except StopIteration as end:
        changed = outcome.get_result() if old_style else end.value
        return results if changed is None else changed
    raise RuntimeError("a wrapper yields once")


def check_sections(hooks: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for a section `hooks.NAME` of no plugin, of one that takes none, or with wrong values; for
    several, all at once."""
    from gymnast_core.config.problems import Problems
    from gymnast_core.config.typed import checked

    manager, problems = plugin_manager(), Problems()
    plugins = {name: plugin for name, plugin in manager.list_name_plugin() if plugin is not None}
    kinds = {name: getattr(plugin, "Config", None) for name, plugin in plugins.items()}
    sections = sorted(name for name, kind in kinds.items() if dataclasses.is_dataclass(kind))
    for name, values in hooks.items():
        if name in manager.broken:
            problems.add(manager.broken[name])
        elif name not in sections:
            known = unknown_name("section", name, sections, where_from("gymnast.hooks", name))
            problems.add(ConfigError(f"hooks.{name}: {known}"))
        else:
            kind: Any = kinds[name]
            checked(kind, values, problems, f"hooks.{name}")
    problems.raise_any()
