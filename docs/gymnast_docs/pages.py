"""Every generated page."""

from __future__ import annotations

from gymnast_docs.commands import commands_page, presets_page
from gymnast_docs.components import component_pages, plugins_page
from gymnast_docs.configs import schemas_page
from gymnast_docs.contracts import contract_pages
from gymnast_docs.notebooks import notebook_pages


def reference() -> dict[str, str]:
    """Markdown by path inside the documentation."""
    return {
        **contract_pages(),
        **component_pages(),
        **notebook_pages(),
        "reference/plugins.md": plugins_page(),
        "reference/configs.md": schemas_page(),
        "reference/commands.md": commands_page(),
        "reference/presets.md": presets_page(),
    }
