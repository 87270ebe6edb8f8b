"""A config from a preset or YAML file and `key=value` overrides."""

import copy
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gymnast_core.config.presets import find_preset
from gymnast_core.config.problems import Problems, without
from gymnast_core.config.ranges import element, plain
from gymnast_core.config.scalars import read_value, read_yaml
from gymnast_core.config.schema import ComponentConfig
from gymnast_core.config.typed import checked, child, fields_of, literal
from gymnast_core.errors import ConfigError, shortened

logger = logging.getLogger(__name__)
C = TypeVar("C")
_OVERRIDE = re.compile(r"[^\s.=/]+(\.[^\s.=/]+)*=")
_KEY = re.compile(r"[^\s.=]+(\.[^\s.=]+)*")
_PLACE = re.compile(r"\[(\d+)\]")
"""`[0]`, which errors write behind the key of a list; the same as `.0`."""
_REFERENCE = re.compile(r"(?<!\\)(?:\\\\)*\$\{(?P<key>\.*[\w-]+(?:\.[\w-]+|\[\d+\])*\})?")
"""`${key.of.config}`, unless a backslash stands before it; without the group: anything else between the braces."""


Check = Callable[[Any, Mapping[str, Any], Problems], None]
"""Looks at a schema and its values, as far as they are right, and adds what it finds to the problems."""


def load_config(
    schema: type[C],
    source: str | Mapping[str, Any] | None,
    overrides: Sequence[str] = (),
    *,
    checks: Sequence[Check] = (),
) -> C:
    """Build `schema` from a preset name, YAML path or plain values, then `key=value` overrides in dotted notation.

    A number among the names of a key is a place in a list, from 0: `judges.0.weight=2`, or `judges[0].weight=2`.

    A component may be given by its bare name (`policy=openvla-oft`). Where an override swaps a component, the
    source's `args` of the old one are dropped. `${preset_dir}` is the source's folder. Text is what was typed, for
    fields that hold text (`gymnast_core.config.scalars`). Environment variables are not resolved: the config is
    written to the run folder, where a secret must never end up. `checks` are asked, too. Raises `ConfigError`, or
    `ConfigErrors` that lists everything that is wrong.
    """
    problems = Problems()
    # A copy: what a swap drops is not taken out of the caller's values.
    values: dict[str, Any] = copy.deepcopy(dict(source)) if isinstance(source, Mapping) else {}
    name = source if isinstance(source, str) else None
    if name:
        with problems.collected():
            values = _read_source(schema, name)
        problems.is_partial = bool(problems.found)
    values = expand_names(schema, values)
    changes = _changes(overrides, schema, problems)
    _drop_swapped_args(schema, values, changes, "")
    resolved = _resolved(_merged(values, changes, "", problems), name, problems)
    resolved.pop("preset_dir", None)
    config, known = checked(schema, resolved, problems)
    for check in checks:
        check(schema, known, problems)
    problems.raise_any()
    assert config is not None
    return config


def to_yaml(config: Any, references: Mapping[str, str] | None = None) -> str:
    """The resolved config as YAML that `load_config` reads back.

    `references` are values that refer to others, by key: {"file": "${preset_dir}/actions.json"}.
    """
    values = {**literal(asdict(config)), **(references or {})}
    return f"kind: {config.kind}\n" + OmegaConf.to_yaml(OmegaConf.create(values))


def parse_overrides(overrides: Sequence[str], schema: Any = None) -> dict[str, Any]:
    """Nested values of dotted `key=value` strings; the last one wins, and drops what it swaps out. `ConfigError`."""
    problems = Problems()
    found = _changes(overrides, schema, problems)
    problems.raise_any()
    return found


def _changes(overrides: Sequence[str], schema: Any, problems: Problems) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not _KEY.fullmatch(key):
            problems.add(
                ConfigError(f"{shortened(override)!r} is not an override; write key=value, e.g. loop.iterations=10.")
            )
            continue
        names = _PLACE.sub(r".\1", key).split(".")
        values: Any = read_value(text, is_text=_type_at(schema, names) is str)
        for name in reversed(names):
            values = {name: values}
        values = expand_names(schema, values)
        _drop_swapped_args(schema, found, values, "")
        found = _merged(found, values, "", problems)
    return found


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's words: names and paths, and `key=value` overrides.

    A path may hold the sign, too ("runs/lr=0.1", "set a=b"): what exists, or has a slash or space before the sign, is
    a path.
    """
    overrides = [text for text in arguments if _OVERRIDE.match(text) and not _exists(text)]
    return [text for text in arguments if text not in overrides], overrides


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # longer than a path can be, or with a NUL
        return False


def merged(values: Any, changes: Any) -> Any:
    """`changes` over `values`, key by key; a list replaces a list, and keys of a list are places in it.

    Raises `ConfigError` for places that a list does not have.
    """
    problems = Problems()
    found = _merged(values, changes, "", problems)
    problems.raise_any()
    return found


def _merged(values: Any, changes: Any, path: str, problems: Problems) -> Any:
    if not isinstance(values, dict | list) or not isinstance(changes, dict):
        return changes
    found: Any = values.copy()
    for key, change in changes.items():
        place = f"{path}.{key}".lstrip(".")
        if isinstance(values, dict):
            found[key] = _merged(values.get(key), change, place, problems)
        elif (position := _position(key, values)) is not None:
            found[position] = _merged(values[position], change, place, problems)
        else:
            problems.add(_no_such_place(path, str(key), len(values)), place)
    return found


def _position(key: Any, values: Sequence[Any]) -> int | None:
    """The place in a list that a key names, from 0; None if it names none."""
    text = str(key)
    # Python reads no number of thousands of digits, and no list is that long.
    is_place = text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(values)
    return int(text) if is_place else None


def _no_such_place(path: str, key: str, length: int) -> ConfigError:
    places = (
        f"holds {length}: {', '.join(f'{path}.{place}' for place in range(min(length, 8)))}" if length else "is empty"
    )
    return ConfigError(
        f"{path} is a list without {shortened(repr(key), 80)}. It {places}. {path}=[...] replaces it as a whole."
    )


def _resolved(values: dict[str, Any], source: str | None, problems: Problems) -> Any:
    """The values with `${key}` replaced by what stands there; where that cannot be, they are told and left out."""
    for key, error in _refused_references(values, ""):
        problems.add(error, key)
        values, _ = without(values, key)
    while True:
        try:
            return OmegaConf.to_container(OmegaConf.create(values), resolve=True)
        except OmegaConfBaseException as error:
            key = str(error.full_key or "")
            reason = shortened(str(error).splitlines()[0]).rstrip(".")
            problems.add(ConfigError(f"{key or source}: {reason}."), key)
            values, was_there = without(values, key)
        except RecursionError:
            problems.add(ConfigError(f"{source or 'The overrides'}: the values refer to each other in a circle."))
            was_there = False
        if not was_there:
            problems.is_partial = True
            return {}


def _refused_references(values: Any, path: str) -> Iterator[tuple[str, ConfigError]]:
    # Names of keys alone are let through, so no spelling of OmegaConf's resolvers reaches the environment.
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _refused_references(value, f"{path}.{key}".lstrip("."))
    elif isinstance(values, list):
        for i, value in enumerate(values):
            yield from _refused_references(value, f"{path}[{i}]")
    elif isinstance(values, str) and any(found["key"] is None for found in _REFERENCE.finditer(values)):
        yield (
            path,
            ConfigError(
                f"{path} is {shortened(values)!r}: ${{KEY}} stands for the value of another key of the config, and "
                f"nothing else goes between the braces. Configs read no environment variables: plugins read their "
                f"secrets; for the signs themselves write \\${{."
            ),
        )


def _type_at(schema: Any, names: Sequence[str]) -> Any:
    """The type of a field by its path; None where the schema does not tell."""
    for name in names:
        schema = child(schema, name)
    return plain(schema)


def _read_source(schema: Any, source: str) -> dict[str, Any]:
    is_file = source.endswith((".yaml", ".yml")) or Path(source).is_file()
    path = Path(source) if is_file else find_preset(source).path
    try:
        values = read_yaml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"No config file {source}. `gymnast presets` lists what is installed.") from error
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"{path} is not a usable YAML config: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping at its top level.")
    kind = values.pop("kind", schema.kind if is_file else "train")
    if kind in getattr(schema, "takes", ()):
        # The folder of another command is not this one's.
        values.pop("output", None)
    elif kind != schema.kind:
        raise ConfigError(f"{source} is a config of `gymnast {kind}`, not of `gymnast {schema.kind}`.")
    return {"preset_dir": literal(str(path.resolve().parent)), **values}


def expand_names(schema: Any, values: Any) -> Any:
    """`policy: NAME` means `policy: {name: NAME}`, wherever the schema has a component."""
    is_component = fields_of(schema)[0] is ComponentConfig
    if is_component and isinstance(values, str):
        return {"name": values}
    if is_component or not isinstance(values, dict):
        return values
    return {key: expand_names(child(schema, str(key)), value) for key, value in values.items()}


def _drop_swapped_args(schema: Any, values: Any, changes: Any, path: str) -> None:
    if isinstance(values, list) and isinstance(changes, dict):
        for key, change in changes.items():
            if (position := _position(key, values)) is not None:
                _drop_swapped_args(element(schema), values[position], change, f"{path}.{key}")
        return
    if not isinstance(values, dict) or not isinstance(changes, dict):
        return
    if fields_of(schema)[0] is not ComponentConfig:
        for key in values.keys() & changes.keys():
            _drop_swapped_args(child(schema, key), values[key], changes[key], f"{path}.{key}".lstrip("."))
        return
    old, new = values.get("name"), changes.get("name")
    if None not in (old, new) and old != new and values.get("args"):
        given = changes.get("args") or {}
        dropped = [name for name in values.pop("args") if name not in given]
        if dropped:
            new = shortened(str(new), 80)
            told = ", ".join(dropped)
            logger.warning("%s is now %r: dropped the arguments meant for %r: %s.", path, new, old, told)
