"""Entry points of installed distributions, read without importing them. Alone in importing `entrypoints`."""

import importlib.metadata
import importlib.util
import logging
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

import entrypoints

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PluginSource:
    """Where a plugin comes from: one line of some distribution's `entry_points.txt`."""

    group: str
    name: str
    target: str
    """"package.module:object", or "package" for presets; not validated before `load`."""
    distribution: str
    version: str | None

    @property
    def module(self) -> str:
        return self.target.partition(":")[0].strip()

    def __str__(self) -> str:
        return f"{self.distribution} {self.version or ''}".rstrip() + f" ({self.target})"


def sources(group: str) -> dict[str, list[PluginSource]]:
    """The plugins of a group by name; more than one source under a name means that their targets differ."""
    return {name: list(found) for name, found in installed().get(group, {}).items()}


def installed() -> dict[str, dict[str, list[PluginSource]]]:
    """Every `gymnast.*` entry point on the path: group -> name -> sources with distinct targets."""
    # `entrypoints` calls str methods on every item, and other tools put pathlib objects on sys.path.
    return _scan(tuple(dict.fromkeys(item for item in sys.path if isinstance(item, str))))


def load(source: PluginSource) -> Any:
    """Import the object behind an entry point. Raises whatever the import raises."""
    return entrypoints.EntryPoint.from_string(source.target, source.name).load()


def locate(module: str) -> ModuleSpec | None:
    """The spec of a dotted module without importing its parents; None if there is no such module."""
    head, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(head)
    except (ImportError, ValueError):
        return None
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))
    return spec


@lru_cache(maxsize=4)
def _scan(folders: tuple[str, ...]) -> dict[str, dict[str, list[PluginSource]]]:
    found: dict[str, dict[str, list[PluginSource]]] = defaultdict(dict)
    seen: set[str] = set()
    by_folder = [_folder_sources(folder) for folder in folders]
    released = {source.distribution for sources in by_folder for source in sources if source.version}
    for in_folder in by_folder:
        # An earlier folder shadows the same distribution in a later one, as it does for imports.
        new = [source for source in in_folder if source.distribution not in seen]
        # Builds leave an egg-info without version in a source tree: often stale, and found first.
        new = [source for source in new if source.version or source.distribution not in released]
        for source in new:
            same_name = found[source.group].setdefault(source.name, [])
            if all(source.target != other.target for other in same_name):
                same_name.append(source)
        seen |= {source.distribution for source in new}
    return dict(found)


def _folder_sources(folder: str) -> list[PluginSource]:
    try:
        return list(_read_with_entrypoints(folder))
    # `entrypoints` stops at the first file it cannot parse; what it raises depends on what is wrong.
    except Exception as error:
        logger.warning("An entry_points.txt in %s is malformed (%s); reading the others.", folder or ".", error)
        return list(_read_with_importlib(folder))


def _read_with_entrypoints(folder: str) -> Iterator[PluginSource]:
    for parser, distribution in entrypoints.iter_files_distros(path=[folder], repeated_distro="all"):
        for group in parser.sections():
            if group.startswith("gymnast."):
                for name, target in parser.items(group, raw=True):
                    yield PluginSource(group, name, target, _normal(distribution.name), distribution.version)


def _read_with_importlib(folder: str) -> Iterator[PluginSource]:
    for distribution in importlib.metadata.distributions(path=[folder]):
        try:
            name, version = distribution.metadata["Name"] or "unknown", distribution.metadata["Version"]
            for entry in distribution.entry_points:
                if entry.group.startswith("gymnast."):
                    yield PluginSource(entry.group, entry.name, entry.value, _normal(name), version)
        except Exception as error:
            logger.warning("Skipped the entry points of a distribution in %s: %s", folder or ".", error)


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
