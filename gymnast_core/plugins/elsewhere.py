"""Names that packages bring which are not installed, for the errors of whoever types one of them.

The names are data: `contributed.yaml` of the package `gymnast`, which `contrib/list_names.py` writes.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from gymnast_core.plugins import discovery

_PACKAGE, _FILE = "gymnast", "contributed.yaml"


def where_from(group: str, name: str) -> str:
    """A sentence on the package that brings a name and how it is installed; "" where none is known.

    `group` is the group of the entry point, e.g. "gymnast.world_models"; of "gymnast.presets", `name` is that of a
    preset, and not the entry point's.
    """
    for distribution, facts in _contributed().items():
        if name in facts["names"].get(group, ()):
            return (
                f"`{name}` is in {distribution}: pip install {distribution} (in a checkout: pip install -e "
                f"{facts['checkout']})."
            )
    return ""


@lru_cache(maxsize=1)
def _contributed() -> dict[str, Any]:
    """Distribution -> `checkout`, its folder there, and `names`: group -> names."""
    from gymnast_core.config.scalars import read_yaml

    spec = discovery.locate(_PACKAGE)
    files = [Path(folder, _FILE) for folder in (spec and spec.submodule_search_locations) or []]
    found: dict[str, Any] = {}
    for file in filter(Path.is_file, files):
        found |= read_yaml(file.read_text(encoding="utf-8"))
    return found
