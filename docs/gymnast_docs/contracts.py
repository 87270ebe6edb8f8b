"""Pages of the public Python interfaces: contracts, data types, errors, checks, hooks and their events."""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import Any

from gymnast import commands, films, parts, results, rolling, tables
from gymnast_core import errors, interfaces, learning, processes, reading, seeds, testing
from gymnast_core import types as data
from gymnast_core.config import ranges
from gymnast_core.plugins import events, hooks, hookspecs, registry
from gymnast_core.rollouts import replay
from gymnast_core.runs import weights
from gymnast_docs.installed import ours
from gymnast_docs.markdown import code, inline, narrowing_table, prose
from gymnast_listing.source import Member, members


def contract_pages() -> dict[str, str]:
    """Page by path."""
    return {
        "reference/contracts.md": _module_page("Interface contracts", interfaces),
        "reference/learning.md": _module_page("What optimizers learn from", learning),
        "reference/types.md": _module_page("Data types", data),
        "reference/replay.md": _module_page("Known actions imagined again", replay),
        "reference/errors.md": _module_page("Errors", errors),
        "reference/testing.md": checks_page(),
        "reference/registry.md": _module_page("Registries", registry),
        "reference/reading.md": _module_page("Ranges and files", ranges, reading, weights),
        "reference/randomness.md": _module_page("Randomness and processes", seeds, processes),
        "reference/hooks.md": hooks_page(),
        "reference/python.md": _module_page("Python", commands, parts, rolling, results, films, tables),
    }


def hooks_page() -> str:
    """Page `hooks`: every function of the hook specifications, and which plugins use it."""
    parts = ["# Hooks", prose(hookspecs.__doc__ or "")]
    parts.append("[Write and publish a plugin](../how-to/plugin.md#a-hook-plugin) shows one.")
    manager, bundled = hooks.plugin_manager(), ours("gymnast.hooks")
    for hook in (member for member in members(hookspecs) if member.is_function):
        event = re.search(r"events\.(\w+)", hook.declaration)
        assert event is not None, hook.name
        callers = [found.plugin_name for found in getattr(manager.hook, hook.name).get_hookimpls()]
        used = ", ".join(f"`{name}` (`{bundled[name].module}`)" for name in sorted(callers) if name in bundled)
        parts += [f"## {hook.name}", code(hook.declaration, "python"), prose(hook.doc)]
        told = f"It is told [`{event[1]}`](#{event[1].lower()})."
        parts.append(f"{told} Used by: {used}." if used else f"{told} No bundled plugin uses it.")
    (marker,) = (member for member in members(hooks) if member.name == "hookimpl")
    parts.append(f"## hookimpl\n\n`gymnast_core.plugins.hooks.hookimpl`: {prose(marker.doc)}")
    parts += ["# Events", prose(events.__doc__ or "")]
    parts += [_class(cls) for cls in _classes(events)]
    return "\n\n".join(parts) + "\n"


def checks_page() -> str:
    """Page `testing`: every check with its options."""
    parts = ["# Contract checks", "Module `gymnast_core.testing`.", prose(testing.__doc__ or "")]
    for check in testing.CHECKS.values():
        (found,) = (member for member in members(inspect.getmodule(check)) if member.name == check.__name__)
        parts.append(_member(found, "##"))
    return "\n\n".join(parts) + "\n"


def _module_page(title: str, *modules: ModuleType) -> str:
    parts = [f"# {title}"]
    for module in modules:
        parts += [f"Module `{module.__name__}`.", prose(module.__doc__ or "")]
        functions = (member for member in members(module) if member.doc)
        parts += [_member(member, "##") for member in functions if member.is_function or member.name != "T"]
        parts += [_class(cls) for cls in _classes(module)]
    return "\n\n".join(parts) + "\n"


def _classes(module: ModuleType) -> list[type]:
    """The public classes that a module defines, in its order."""
    found = [cls for cls in vars(module).values() if inspect.isclass(cls) and cls.__module__ == module.__name__]
    return [cls for cls in found if not cls.__name__.startswith("_")]


def _class(cls: type) -> str:
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base not in (object,))
    own = members(cls)
    fields = [member for member in own if not member.is_function and member.name != "Config"]
    parts = [f"## {cls.__name__}", *([f"Bases: `{bases}`."] if bases else []), prose(inspect.getdoc(cls) or "")]
    if fields:
        rows = [(f"`{member.name}`", f"`{_declared(member)}`", inline(member.doc)) for member in fields]
        parts.append(narrowing_table(("Attribute", "Type and default", "Meaning"), rows))
    parts += [_member(member, "###", cls) for member in own if member.is_function]
    return "\n\n".join(parts)


def _member(member: Member, level: str, cls: Any = None) -> str:
    anchor = f" {{ #{cls.__name__.lower()}.{member.name.lower()} }}" if cls else ""
    needed = "Must be defined.\n\n" if cls and member.name in getattr(cls, "__abstractmethods__", ()) else ""
    return f"{level} {member.name}{anchor}\n\n{code(member.declaration, 'python')}\n\n{needed}{prose(member.doc)}"


def _declared(member: Member) -> str:
    return " ".join(member.declaration.removeprefix(member.name).lstrip(": =").split())
