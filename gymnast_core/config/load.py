"""A config from a preset or YAML file and `key=value` overrides."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gymnast_core.config.presets import find_preset
from gymnast_core.config.schema import ComponentConfig
from gymnast_core.config.typed import child, fields_of, typed
from gymnast_core.errors import ConfigError

logger = logging.getLogger(__name__)
C = TypeVar("C")


def load_config(schema: type[C], source: str | None, overrides: Sequence[str] = ()) -> C:
    """Build `schema` from a preset name or YAML path, then `key=value` overrides in dotted notation.

    A component may be given by its bare name (`policy=openvla-oft`). Where an override swaps a component, the
    source's `args` of the old one are dropped. `${preset_dir}` is the source's folder. Raises `ConfigError`.
    """
    values = _expand_names(schema, _read_source(schema, source) if source else {})
    changes = parse_overrides(overrides, schema)
    _drop_swapped_args(schema, values, changes, "")
    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.merge(values, changes), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or source}: {str(error).splitlines()[0]}") from error
    resolved.pop("preset_dir", None)
    return typed(schema, resolved)


def to_yaml(config: Any) -> str:
    """The resolved config as YAML that `load_config` reads back."""
    return f"kind: {config.kind}\n" + OmegaConf.to_yaml(OmegaConf.structured(config))


def parse_overrides(overrides: Sequence[str], schema: Any = None) -> dict[str, Any]:
    """Nested values of dotted `key=value` strings; the last one wins, and drops what it swaps out. `ConfigError`."""
    merged: Any = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not key or not equals:
            raise ConfigError(f"{override!r} is not an override; write key=value, e.g. loop.iterations=10.")
        _refuse_environment(key, value)
        try:
            values = _expand_names(schema, OmegaConf.to_container(OmegaConf.from_dotlist([override]), resolve=False))
            _drop_swapped_args(schema, merged, values, "")
            merged = OmegaConf.to_container(OmegaConf.merge(merged, values), resolve=False)
        except Exception as error:  # a value is YAML, whose parser raises errors of its own
            raise ConfigError(f"{override!r} cannot be read: {error}") from error
    return merged


def _read_source(schema: Any, source: str) -> dict[str, Any]:
    is_file = source.endswith((".yaml", ".yml")) or Path(source).is_file()
    path = Path(source) if is_file else find_preset(source).path
    try:
        text = path.read_text(encoding="utf-8")
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except FileNotFoundError as error:
        raise ConfigError(f"No config file {source}. `gymnast presets` lists what is installed.") from error
    except Exception as error:
        raise ConfigError(f"{path} is not a usable YAML config: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping at its top level.")
    kind = values.pop("kind", schema.kind if is_file else "train")
    if kind != schema.kind:
        raise ConfigError(f"{source} is a config of `gymnast {kind}`, not of `gymnast {schema.kind}`.")
    _refuse_environment(str(path), text)
    return {"preset_dir": str(path.resolve().parent), **values}


def _refuse_environment(place: str, text: str) -> None:
    # The resolved config is written to the run folder, where a secret must never end up.
    if "${oc.env:" in text:
        raise ConfigError(f"{place}: ${{oc.env:...}} is not for configs; plugins read secrets themselves.")


def _expand_names(schema: Any, values: Any) -> Any:
    """`policy: NAME` means `policy: {name: NAME}`, wherever the schema has a component."""
    is_component = fields_of(schema)[0] is ComponentConfig
    if is_component and isinstance(values, str):
        return {"name": values}
    if is_component or not isinstance(values, dict):
        return values
    return {key: _expand_names(child(schema, str(key)), value) for key, value in values.items()}


def _drop_swapped_args(schema: Any, values: Any, changes: Any, path: str) -> None:
    if not isinstance(values, dict) or not isinstance(changes, dict):
        return
    if fields_of(schema)[0] is not ComponentConfig:
        for key in values.keys() & changes.keys():
            _drop_swapped_args(child(schema, key), values[key], changes[key], f"{path}.{key}".lstrip("."))
        return
    old, new = values.get("name"), changes.get("name")
    if None not in (old, new) and old != new and values.get("args"):
        dropped = ", ".join(values.pop("args"))
        logger.warning("%s is now %r: dropped the arguments meant for %r: %s.", path, new, old, dropped)
