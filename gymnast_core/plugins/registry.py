"""Plugins by name: listed without importing anything, imported when loaded, built with typed arguments."""

import dataclasses
import importlib
import inspect
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gymnast_core import __version__
from gymnast_core.errors import GymnastError, PluginError, unknown_name
from gymnast_core.plugins import discovery
from gymnast_core.plugins.discovery import PluginSource
from gymnast_core.plugins.elsewhere import where_from

if TYPE_CHECKING:
    from gymnast_core.interfaces import Dataset, Optimizer, Policy, RewardModel, WorldModel

T = TypeVar("T")


@dataclass(frozen=True)
class PluginInfo:
    """One line of `gymnast plugins`."""

    kind: str
    name: str
    sources: tuple[PluginSource, ...]
    error: str | None
    """Why it cannot be used (a traceback where there is one); None if nothing is known against it."""


class Registry(Generic[T]):
    """The plugins of one kind.

    >>> registries().world_models.build("worldgym", {"checkpoint": "path"})
    """

    def __init__(self, kind: str, group: str, interface: str, module: str = "gymnast_core.interfaces") -> None:
        """`interface` is the class in `module` that plugins are subclasses of."""
        self.kind, self.group, self.interface, self.module = kind, group, interface, module
        self._registered: dict[PluginSource, type[T]] = {}
        self._loaded: dict[str, type[T]] = {}
        self._broken: dict[str, str] = {}

    def register(self, name: str, cls: type[T]) -> None:
        """Add a class, from a `gymnast_register` hook. A name in use by another class is a conflict."""
        target = f"{cls.__module__}:{cls.__qualname__}"
        self._registered[PluginSource(self.group, name, target, cls.__module__.partition(".")[0], None)] = cls
        self._loaded.pop(name, None)

    def names(self) -> list[str]:
        return sorted({*discovery.sources(self.group), *(source.name for source in self._registered)})

    def sources(self, name: str) -> list[PluginSource]:
        """Where the name comes from; several if distributions clash over it. `PluginError` if unknown."""
        found = discovery.sources(self.group).get(name, [])
        targets = {source.target for source in found}
        found += [source for source in self._registered if source.name == name and source.target not in targets]
        if not found:
            raise PluginError(self.unknown(name) + _as_path(name))
        return found

    def unknown(self, name: str) -> str:
        """What to say of a name that no installed plugin of this kind has."""
        elsewhere = where_from(self.group, name)
        return unknown_name(self.kind, name, self.names(), elsewhere) + " See `gymnast plugins`."

    def describe(self) -> list[PluginInfo]:
        """Every plugin with what is wrong with it, as far as that shows without importing it or has shown."""
        return [
            PluginInfo(self.kind, name, tuple(self.sources(name)), self._broken.get(name) or self._fault(name))
            for name in self.names()
        ]

    def load(self, name: str) -> type[T]:
        """Import the class. `PluginError` if it is unknown, ambiguous, broken or of another API version."""
        if name not in self._loaded:
            sources = self.sources(name)
            if clash := self._clash(sources):
                raise PluginError(clash)
            try:
                cls: Any = self._registered.get(sources[0]) or discovery.load(sources[0])
                self._check(name, cls, sources[0])
            except GymnastError as error:
                self._broken[name] = str(error)
                raise
            # Importing foreign code can raise anything, SystemExit included, and must not stop the others.
            except (Exception, SystemExit) as error:
                self._broken[name] = "".join(traceback.format_exception(error))
                raise PluginError(
                    f"The {self.kind} {name!r} of {sources[0]} cannot be imported: "
                    f"{type(error).__name__}: {error}. `gymnast plugins --load` shows the traceback."
                ) from error
            self._broken.pop(name, None)
            self._loaded[name] = cls
        return self._loaded[name]

    def configure(self, name: str, args: Mapping[str, Any] | None = None, *, key: str | None = None) -> Any:
        """The plugin's `Config` from `args` merged over its defaults; nothing is built.

        `key` is the component's place in the config, for error messages ("world_model", "evaluation.world").
        Raises `ConfigError` for arguments that do not fit, `PluginError` if the plugin cannot be loaded.
        """
        from gymnast_core.config.typed import typed

        cls: Any = self.load(name)
        return typed(cls.Config, args or {}, f"{key or self.kind.replace(' ', '_')}.args")

    def build(self, name: str, args: Mapping[str, Any] | None = None, *, key: str | None = None) -> T:
        """Build the plugin from `args` merged over its `Config`; errors as of `configure`, and `PluginError` that names
        the distribution for whatever its constructor raises. Our own errors (`GymnastError`) pass as they are."""
        cls: Any = self.load(name)
        config = self.configure(name, args, key=key)
        try:
            return cls(config)
        except GymnastError:
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise PluginError(
                f"The {self.kind} {name!r} of {self.sources(name)[0]} cannot be built: {type(error).__name__}: {error} "
                f"({where.filename}:{where.lineno})."
            ) from error

    def _check(self, name: str, cls: Any, source: PluginSource) -> None:
        from gymnast_core import interfaces

        label = f"The {self.kind} {name!r} of {source}"
        is_component = inspect.isclass(cls) and issubclass(
            cls, getattr(importlib.import_module(self.module), self.interface)
        )
        if not is_component:
            raise PluginError(f"{label} is not a subclass of {self.module}.{self.interface}.")
        # A plugin that says nothing was written when nothing had to be said.
        ours, theirs, who = interfaces.API_VERSION, getattr(cls, "api_version", None), source.distribution
        if theirs is None:
            raise PluginError(
                f"{label} says no `api_version`, as plugins of API 1 did; this gymnast has {ours}. If it was written "
                f"for that, its author says `api_version = {ours}` in the class {cls.__name__}. Else try `pip install "
                f"--upgrade {who}`, or an earlier release: `pip install 'gymnast<{__version__}'`; docs/api-2.md says "
                "what to change."
            )
        if theirs != ours:
            is_old = isinstance(theirs, int) and theirs < ours
            update, pin = (who, f"gymnast<{__version__}") if is_old else ("gymnast", f"{who}<{source.version or 'X'}")
            raise PluginError(
                f"{label} is written for plugin API {theirs!r}; this gymnast has {ours}. "
                f"Try `pip install --upgrade {update}`, or an earlier release: `pip install '{pin}'`. Its author finds "
                f"what to change in docs/api-2.md, and then says `api_version = {ours}` in the class."
            )
        config = getattr(cls, "Config", None)
        if not (inspect.isclass(config) and dataclasses.is_dataclass(config)):
            raise PluginError(f"{label} has no `Config` dataclass.")
        if inspect.isabstract(cls):
            raise PluginError(f"{label} lacks {', '.join(sorted(cls.__abstractmethods__))}().")

    def _fault(self, name: str) -> str | None:
        sources = self.sources(name)
        fault = self._clash(sources)
        if fault is None and sources[0] not in self._registered and discovery.locate(sources[0].module) is None:
            fault = f"There is no module {sources[0].module!r}: reinstall {sources[0].distribution}."
        return fault

    def _clash(self, sources: list[PluginSource]) -> str | None:
        places = " and ".join(map(str, sources))
        clash = f"Two plugins are called {self.kind} {sources[0].name!r}: {places}. Uninstall or rename one."
        return clash if len(sources) > 1 else None


def _as_path(name: str) -> str:
    """What to add where a folder or file stands in the place of a plugin's name."""
    try:
        is_path = Path(name).exists()
    except (OSError, ValueError):  # too long, or with characters that no path has
        is_path = False
    if not is_path:
        return ""
    return (
        f" {name} is a path, which a plugin takes as an argument, most as args.path={name} or args.checkpoint={name}."
    )


class Registries:
    """One registry for each kind of plugin."""

    def __init__(self) -> None:
        self.world_models: Registry[WorldModel] = Registry("world model", "gymnast.world_models", "WorldModel")
        self.policies: Registry[Policy] = Registry("policy", "gymnast.policies", "Policy")
        self.reward_models: Registry[RewardModel] = Registry("reward model", "gymnast.reward_models", "RewardModel")
        self.optimizers: Registry[Optimizer] = Registry("optimizer", "gymnast.optimizers", "Optimizer")
        self.datasets: Registry[Dataset] = Registry("dataset", "gymnast.datasets", "Dataset")

    def __iter__(self) -> Iterator[Registry[Any]]:
        return iter(vars(self).values())


@lru_cache(maxsize=1)
def registries() -> Registries:
    """The registries of this process, `gymnast_register` hooks included."""
    from gymnast_core.plugins.events import Registering
    from gymnast_core.plugins.hooks import tell

    result = Registries()
    tell("gymnast_register", Registering(result))
    return result
