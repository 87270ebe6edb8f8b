"""The plugin manager: loads hook plugins and keeps a broken one from stopping the others."""

import inspect
import logging
from functools import lru_cache
from typing import Any

import pluggy

from gymnast_core import discovery, hookspecs
from gymnast_core.errors import PluginError

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
        return {} if name.startswith("gymnast_") else None

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


def call_each(hook: str, **arguments: Any) -> None:
    """Call a hook plugin by plugin; one that raises is logged, unregistered and listed as broken."""
    manager = plugin_manager()
    for found in reversed(getattr(manager.hook, hook).get_hookimpls()):
        try:
            found.function(**{name: arguments[name] for name in found.argnames})
        except Exception as error:
            name = found.plugin_name
            manager.mark_broken(name, f"{hook} of the hook plugin {name!r} failed: {error!r}")
            manager.unregister(found.plugin)
