"""What the packages in this folder bring, by name, for errors that name one which is not installed.

    python contrib/list_names.py

Writes plugins/gymnast/contributed.yaml. Run it after a plugin or preset got, lost or changed its name.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

CONTRIB = Path(__file__).resolve().parent
TARGET = CONTRIB.parent / "plugins" / "gymnast" / "contributed.yaml"
PRESETS = "gymnast.presets"
HEADER = "# Names that the packages in contrib/ bring. Written by contrib/list_names.py.\n"


def contributed() -> str:
    """The text of contributed.yaml: of each distribution, its folder and its names by entry-point group."""
    found = {}
    for file in sorted(CONTRIB.glob("gymnast-*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        names = {
            group: sorted(_presets(file.parent, entries) if group == PRESETS else entries)
            for group, entries in sorted(project.get("entry-points", {}).items())
            if group.startswith("gymnast.")
        }
        found[project["name"]] = {"checkout": f"contrib/{file.parent.name}", "names": names}
    return HEADER + yaml.safe_dump(found, sort_keys=False, width=120)


def _presets(folder: Path, entries: dict[str, str]) -> list[str]:
    """Names of the presets in the packages that entry points of `gymnast.presets` name."""
    packages = [folder.joinpath(*target.split(".")) for target in entries.values()]
    return [path.stem for package in packages for path in package.glob("presets/*.yaml")]


if __name__ == "__main__":
    TARGET.write_text(contributed(), encoding="utf-8")
    print(TARGET)
