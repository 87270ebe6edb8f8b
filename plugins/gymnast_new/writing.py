"""Names, and the files of a new plugin package."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2

from gymnast_core import __version__
from gymnast_core.errors import ConfigError
from gymnast_core.plugins import discovery
from gymnast_new.kinds import Kind

TEMPLATE = Path(__file__).parent / "template"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Names:
    """What a plugin called "two-words" is called elsewhere."""

    plugin: str
    """Entry point: "two-words"."""
    distribution: str
    """"gymnast-two-words", also the folder."""
    package: str
    """"gymnast_two_words"."""
    class_name: str
    """"TwoWordsPolicy"."""


def names_for(kind: Kind, name: str) -> Names:
    """Names for a plugin. Raises `ConfigError` if `name` is not a valid one or is taken."""
    plugin = name.removeprefix("gymnast-")
    if not _NAME.fullmatch(plugin):
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", plugin).lower()
        proposal = re.sub(r"[^a-z0-9]+", "-", words).strip("-").lstrip("-0123456789")
        hint = f" Try: gymnast new {kind.name} {proposal}" if proposal else ""
        raise ConfigError(
            f"{name!r} cannot be a plugin's name: use lower-case letters and digits, with single hyphens between "
            f"words, beginning with a letter.{hint}"
        )
    camel = "".join(word.capitalize() for word in plugin.split("-"))
    class_name = camel if camel.endswith(kind.suffix) and camel != kind.suffix else camel + kind.suffix
    names = Names(plugin, f"gymnast-{plugin}", f"gymnast_{plugin.replace('-', '_')}", class_name)
    _refuse_taken(kind, names)
    return names


def write_package(kind: Kind, names: Names, folder: Path) -> list[Path]:
    """Write the package into `folder`, which must not exist; returns its files. Raises `ConfigError`."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigError(f"{folder} exists. Choose another name, or another place with --into FOLDER.") from error
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error}. Choose another place with --into FOLDER.") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE),
        variable_start_string="<<",
        variable_end_string=">>",
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    written = []
    for target, template in _files(kind, names).items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        text = environment.get_template(template).render(kind=kind, names=names, gymnast_range=_range(__version__))
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _files(kind: Kind, names: Names) -> dict[str, str]:
    """Template of each file of the package."""
    return {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        "LICENSE": "LICENSE",
        ".gitignore": "gitignore.j2",
        ".github/workflows/ci.yml": "ci.yml.j2",
        f"{names.package}/__init__.py": "init.py.j2",
        f"{names.package}/{kind.module}.py": f"{kind.module}.py.j2",
        f"tests/test_{names.package}.py": f"test_{kind.module}.py.j2",
    }


def _refuse_taken(kind: Kind, names: Names) -> None:
    advice = "Choose another name; `gymnast plugins` lists those in use."
    if found := discovery.sources(kind.group).get(names.plugin):
        raise ConfigError(f"{names.plugin!r} is taken in {kind.group}, by {found[0]}. {advice}")
    if discovery.locate(names.package) is not None:
        raise ConfigError(f"There is a package {names.package!r} already. {advice}")
    try:
        version = importlib.metadata.version(names.distribution)
    except importlib.metadata.PackageNotFoundError:
        return
    raise ConfigError(f"{names.distribution} {version} is installed already. {advice}")


def _range(version: str) -> str:
    """The releases that a plugin is tried with: "0.2.1" -> ">=0.2.1,<0.3"."""
    major, minor = version.split(".")[:2]
    return f">={version},<{f'0.{int(minor) + 1}' if major == '0' else int(major) + 1}"
