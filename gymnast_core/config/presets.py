"""Presets: YAML files in the `presets` folder of packages named by entry points of `gymnast.presets`."""

import difflib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gymnast_core.config.scalars import read_yaml
from gymnast_core.errors import ConfigError, unknown_name
from gymnast_core.plugins import discovery
from gymnast_core.plugins.elsewhere import where_from

_GROUP = "gymnast.presets"


COMPONENTS = ("world_model", "policy", "reward_model")
"""Keys of a config of `gymnast fit`, one of which says what is fitted."""


@dataclass(frozen=True)
class Preset:
    """A complete config that comes with a plugin. Its file is read when something about it is asked for."""

    name: str
    """File name without `.yaml`."""
    path: Path
    distribution: str

    @property
    def kind(self) -> str:
        """The command it is for: "train", "fit", "evaluate" and so on."""
        return config_kind(self._text)

    @property
    def description(self) -> str:
        """Its first line, if that is a comment."""
        first = self._text.partition("\n")[0]
        return first.lstrip("# ").strip() if first.startswith("#") else ""

    def fits(self, component: str) -> bool:
        """Whether `gymnast fit` with it makes a checkpoint of that component."""
        if self.kind != "fit":
            return False
        sections = [config_values(self._text).get(key) for key in COMPONENTS]
        names = [section.get("name") if isinstance(section, dict) else section for section in sections]
        return component in names

    @cached_property
    def _text(self) -> str:
        return self.path.read_text(encoding="utf-8", errors="replace")


def config_values(text: str) -> dict[str, Any]:
    """What a config's text says; nothing where it is no config, which who uses it is told."""
    try:
        values = read_yaml(text)
    except ConfigError:
        return {}
    return values if isinstance(values, dict) else {}


def config_kind(text: str) -> str:
    """The command that a config is for, by its `kind`: "train" if it says none."""
    return str(config_values(text).get("kind") or "train")


def presets() -> list[Preset]:
    """Every installed preset, by name, read without importing its package."""
    found: dict[Path, Preset] = {}
    for sources in discovery.sources(_GROUP).values():
        for source in sources:
            spec = discovery.locate(source.module)
            for folder in (spec and spec.submodule_search_locations) or []:
                for path in filter(Path.is_file, Path(folder, "presets").glob("*.yaml")):
                    found[path.resolve()] = Preset(path.stem, path.resolve(), source.distribution)
    return sorted(found.values(), key=lambda preset: (preset.name, str(preset.path)))


def find_preset(name: str) -> Preset:
    """The preset of that name. Raises `ConfigError` if there is none or two distributions bring one."""
    everything = presets()
    matches = [preset for preset in everything if preset.name == name]
    if not matches:
        if "/" in name or _is_folder(name):
            raise ConfigError(_not_a_config(name))
        known = [preset.name for preset in everything]
        unknown = unknown_name("preset", name, known, where_from(_GROUP, name))
        raise ConfigError(f"{unknown} A path to a YAML file works, too.")
    if len(matches) > 1:
        places = " and ".join(f"{preset.path} of {preset.distribution}" for preset in matches)
        raise ConfigError(f"Two presets are called {name!r}: {places}. Give the path of the one you mean.")
    return matches[0]


def fitted_by(component: str) -> str:
    """The command that makes a checkpoint of that component: `gymnast fit` with the presets that fit one, if any;
    to stand between backticks, which separate several, too."""
    found = [f"gymnast fit {preset.name}" for preset in presets() if preset.fits(component)]
    return "` or `".join(found) or "gymnast fit"


def untrained(component: str, key: str) -> str:
    """What to say where a network acts that was never trained, since no checkpoint was named."""
    return (
        f"{component} has no checkpoint: its network was never trained, and what it does is noise. Set "
        f"{key}.args.checkpoint, e.g. to RUN/checkpoint, which `{fitted_by(component)}` writes."
    )


def checkpoint_advice(folder: Path, component: str) -> str:
    """What to give instead of a folder that holds no checkpoint of that component: the one inside it, if there is one,
    or the command that writes one."""
    inside = [folder / name for name in ("checkpoint", "policy") if (folder / name / "config.json").is_file()]
    if inside:
        return f"It is the folder of a run; did you mean {inside[0]}?"
    return f"Give RUN/checkpoint, which `{fitted_by(component)}` writes."


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long, or with characters that no path has
        return False


def _not_a_config(name: str) -> str:
    """What to say of a path in the place of a preset's name or a YAML file."""
    path = Path(name)
    presets_too = "`gymnast presets` lists what may be given by name."
    if _is_folder(name):
        has_config = (path / "config.yaml").is_file()
        advice = f"Give the config in it: {path / 'config.yaml'}." if has_config else "It has no config.yaml."
        return f"{name} is a folder, and a preset or YAML file is needed. {advice} {presets_too}"
    beside = [other.name for other in path.parent.iterdir()] if _is_folder(str(path.parent)) else []
    close = difflib.get_close_matches(path.name, beside, n=1)
    hint = f" Did you mean {path.parent / close[0]}?" if close else ""
    return f"{name} is no run folder and no file: nothing is there.{hint} {presets_too}"
