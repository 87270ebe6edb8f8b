"""Why a plugin cannot be used, and the pip command that helps."""

from __future__ import annotations

import importlib.metadata
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from gymnast_core.plugins import discovery
from gymnast_core.plugins.discovery import PluginSource

_MISSING = re.compile(r"No module named '([\w.]+)'")
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][\w.-]*)\s*(?:\[[^]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?$")


def advice(error: str, sources: Sequence[PluginSource]) -> str | None:
    """The command that may repair a plugin with that error; None if none is known."""
    found = _MISSING.findall(error)
    if not found or not sources:
        return None
    module, source = found[-1].partition(".")[0], sources[0]
    if module == source.module.partition(".")[0]:
        return f"pip install --force-reinstall --no-deps {source.distribution}"
    return f"pip install {_provider(module, source.distribution)}"


def missing_module(source: PluginSource) -> str | None:
    """What is wrong with the place that an entry point names, without importing it; None if it is there."""
    if discovery.locate(source.module) is not None:
        return None
    return f"There is no module {source.module!r}: reinstall {source.distribution}."


def import_error(source: PluginSource) -> str | None:
    """The traceback of an entry point that cannot be imported."""
    try:
        discovery.load(source)
    # Importing foreign code can raise anything, SystemExit included, and must not stop the listing.
    except (Exception, SystemExit) as error:
        return "".join(traceback.format_exception(error))
    return None


def _provider(module: str, distribution: str) -> str:
    """The requirement that brings a module, as pip takes it.

    That of its name; else what the plugin's metadata asks for and is not installed, since a distribution's name need
    not be that of its module; else the module's name.
    """
    needed = _requirements(distribution)
    for wanted in needed:
        if wanted.name == _normal(module):
            return wanted.for_pip
    absent = [wanted.for_pip for wanted in needed if not wanted.is_extra and not _is_installed(wanted.name)]
    return " ".join(absent) or module


@dataclass(frozen=True)
class _Requirement:
    name: str
    """In normal form."""
    for_pip: str
    """Quoted for a shell."""
    is_extra: bool


def _requirements(distribution: str) -> list[_Requirement]:
    """What a distribution's metadata says that it needs."""
    try:
        lines = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for match in filter(None, map(_REQUIREMENT.match, lines)):
        name, version, marker = match.group(1), match.group(2).strip(), match.group(3) or ""
        found.append(_Requirement(_normal(name), f"'{name}{version}'" if version else name, "extra" in marker))
    return found


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
