"""The entry points that this distribution brings."""

from __future__ import annotations

from pathlib import Path

from gymnast_core.errors import PluginError
from gymnast_core.plugins import discovery
from gymnast_core.plugins.discovery import PluginSource

DISTRIBUTION = "gymnast"


def ours(group: str) -> dict[str, PluginSource]:
    """Those of a group, by name. Raises `PluginError` for one whose module is not there."""
    found = {name: source for name, sources in discovery.sources(group).items() for source in sources}
    mine = {name: source for name, source in sorted(found.items()) if source.distribution == DISTRIBUTION}
    for source in mine.values():
        if discovery.locate(source.module) is None:
            raise PluginError(f"There is no module {source.module!r} for {source.group}: {source.name}. Install again.")
    return mine


def modules() -> dict[str, Path]:
    """The modules of the core and of all packages that the entry points name: file by dotted name."""
    sources = [source for group in discovery.installed() for source in ours(group).values()]
    packages = sorted({"gymnast_core", *(source.module.partition(".")[0] for source in sources)})
    specs = [discovery.locate(package) for package in packages]
    folders = [Path(folder) for spec in specs for folder in (spec and spec.submodule_search_locations) or ()]
    return {
        ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
    }
