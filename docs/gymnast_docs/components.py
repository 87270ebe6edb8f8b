"""Pages of the installed plugins: one a kind, and the list of all."""

from __future__ import annotations

import inspect
from typing import Any

from gymnast_core.plugins import discovery
from gymnast_core.plugins.registry import Registry, registries
from gymnast_docs.configs import config_table
from gymnast_docs.installed import ours
from gymnast_docs.markdown import anchor, inline, prose, table


def page_name(registry: Registry[Any]) -> str:
    return registry.group.removeprefix("gymnast.").replace("_", "-")


def component_pages() -> dict[str, str]:
    """Page by path: one for each kind of component."""
    return {f"reference/{page_name(registry)}.md": _page(registry) for registry in registries()}


def _page(registry: Registry[Any]) -> str:
    title = page_name(registry).replace("-", " ").capitalize()
    parts = [
        f"# {title}",
        f"Contract: [`{registry.interface}`](contracts.md#{registry.interface.lower()}). "
        f"Entry points: `{registry.group}`. "
        f"The keys are those of `args`; `gymnast check {registry.kind.replace(' ', '-')} NAME KEY=VALUE` tries them.",
    ]
    for name, source in ours(registry.group).items():
        cls: Any = registry.load(name)
        fitted = " It can be trained by `gymnast fit`." if _is_trainable(cls) else ""
        parts += [
            f"## {name}",
            prose(cls.__doc__ or ""),
            f"Class `{source.target}`.{fitted}",
            config_table(cls.Config, cls.presets()),
        ]
    return "\n\n".join(parts) + "\n"


def _is_trainable(cls: Any) -> bool:
    from gymnast_core.interfaces import Trainable

    return issubclass(cls, Trainable) and cls.training_loss is not Trainable.training_loss


def plugins_page() -> str:
    """Page `plugins`: every entry point, by group, with the `Config` of those that have no page of their kind."""
    parts = [
        "# Plugins",
        "Everything that this distribution brings, found through entry points as a third party's plugins are. "
        "`gymnast plugins` prints what is installed on a machine.",
    ]
    pages = {registry.group: page_name(registry) for registry in registries()}
    for group in sorted(discovery.installed()):
        found = {name: (source, discovery.load(source)) for name, source in ours(group).items()}
        rows = [
            (_linked(name, pages.get(group)), f"`{source.target}`", _summary(target))
            for name, (source, target) in found.items()
        ]
        if rows:
            parts += [f"## {group}", table(("Name", "Target", "What it is"), rows)]
        for name, (_, target) in found.items() if group not in pages else ():
            if hasattr(target, "Config"):
                parts += [f"Arguments of `{name}`:", config_table(target.Config)]
    return "\n\n".join(parts) + "\n"


def _linked(name: str, page: str | None) -> str:
    return f"[`{name}`]({page}.md#{anchor(name)})" if page else f"`{name}`"


def _summary(target: Any) -> str:
    text = getattr(target, "help", None) or inspect.getdoc(target) or ""
    return inline(text.split("\n\n")[0].replace("\b", ""))
