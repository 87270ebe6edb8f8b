"""The plugin manager: loads hook plugins and keeps a broken one from stopping the others."""

import inspect
import logging
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import pluggy

from gymnast_core.errors import PluginError
from gymnast_core.plugins import discovery, hookspecs

hookimpl = pluggy.HookimplMarker("gymnast")
"""Optional marker for hook functions, for pluggy's options (`tryfirst`, `wrapper`, ...)."""

logger = logging.getLogger(__name__)


class HookManager(pluggy.PluginManager):
    """Every function `gymnast_*` of a plugin is a hook, marked or not, so that none is silently ignored."""

    def __init__(self) -> None:
        super().__init__("gymnast")
        self.add_hookspecs(hookspecs)
        self.broken: dict[str, PluginError] = {}
        """Plugins that were refused, by name."""

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
            raise PluginError(f"The hook plugin {name!r} was refused: {reason}. Hooks: {known}.") from error

    def mark_broken(self, name: str, reason: str) -> None:
        self.broken[name] = PluginError(reason)
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


def call_each(hook: str, *, passing: tuple[type[Exception], ...] = (), **arguments: Any) -> list[Any]:
    """What a hook's plugins return, called one by one; errors not of a type `passing` are logged and stop none."""
    manager, results = plugin_manager(), []
    for found in reversed(getattr(manager.hook, hook).get_hookimpls()):
        try:
            results.append(found.function(**{name: arguments[name] for name in found.argnames}))
        except passing:
            raise
        except (Exception, SystemExit) as error:
            manager.mark_broken(found.plugin_name, f"{hook} of the hook plugin {found.plugin_name!r} failed: {error!r}")
            logger.debug("Traceback:", exc_info=True)
    return results


class Notify:
    """`Notify().gymnast_…(…)` calls a hook that only tells: what fails in it must not cost anyone the run."""

    def __init__(self, silent: bool = False) -> None:
        self._call: Callable[..., Any] = (lambda hook, **_: None) if silent else call_each

    def __getattr__(self, hook: str) -> Callable[..., None]:
        return partial(self._call, hook)
