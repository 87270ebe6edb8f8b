"""Plain values -> an instance of a config dataclass, with errors that name the key path."""

import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gymnast_core.config.problems import Problems, without
from gymnast_core.config.ranges import element, plain, refused_values
from gymnast_core.config.schema import ComponentConfig
from gymnast_core.errors import ConfigError, GymnastError, shortened, unknown_name

C = TypeVar("C")
_TRUTHS = ("true", "false", "yes", "no", "on", "off", "y", "n", "1", "0")


def typed(schema: type[C], values: Mapping[str, Any], key: str = "") -> C:
    """Merge `values` over the defaults of the dataclass `schema` and build it; lists replace lists, and a component of
    another name than the default's takes none of the default's `args`.

    `key` is the path of `values` in the whole config, e.g. "world_model.args", used in errors. Raises
    `ConfigError` for unknown keys, wrong types, missing mandatory values, numbers outside the range that is declared
    beside their field (`gymnast_core.config.ranges`) and whatever the dataclass refuses; all of it at once
    (`ConfigErrors`), but for rules between fields, which are asked where each field is right.
    """
    problems = Problems()
    config, _ = checked(schema, values, problems, key)
    problems.raise_any()
    assert config is not None
    return config


def checked(
    schema: type[C], values: Mapping[str, Any], problems: Problems, key: str = ""
) -> tuple[C | None, dict[str, Any]]:
    """As `typed`, with `problems` kept instead of raised: the instance, or None if there are any here, and the values
    as far as they are right, over the defaults; "???" where one is missing."""
    before = len(problems.found)
    known = _known(schema, values, key, problems)
    config, _ = _merged(schema, known, key, problems)
    if config is None:
        return None, {}
    whole: Any = OmegaConf.to_container(config, resolve=True)
    missing = sorted({*OmegaConf.missing_keys(config), *_unsaid(known, "")})
    if paths := [path for name in missing if not problems.spoil(path := _join(key, name)) and not problems.is_partial]:
        problems.add(
            ConfigError(f"Missing value: {', '.join(paths)}. Set it in the YAML or with {paths[0]}=VALUE."), paths[0]
        )
        problems.lost |= set(paths)
    for path, error in refused_values(schema, _without_unsaid(whole), key):
        problems.add(error, path)
    if len(problems.found) == before and not missing and not problems.is_partial:
        return _instance(schema, config, key, problems), whole
    _check_sections(config, key, problems)
    return None, whole


def _merged(schema: Any, values: Any, key: str, problems: Problems) -> tuple[Any, dict[str, Any]]:
    """The values over the defaults, or None if that cannot be done, and the values; those of a wrong type are told and
    left out."""
    left = _texts(schema, dict(values))
    while True:
        try:
            config = OmegaConf.structured(schema)
            _unlock(config)
            _drop_others_args(config, left)
            return OmegaConf.merge(config, OmegaConf.create(literal(left))), left
        except OmegaConfBaseException as error:
            reason = shortened(str(error.msg or error).splitlines()[0]).rstrip(".")
            path = _join(key, error.full_key)
            problems.add(ConfigError(f"{path or schema.__qualname__}: {reason}."), path)
            left, was_there = without(left, str(error.full_key or ""))
            if not was_there:
                return None, {}
        except (ValueError, TypeError, AssertionError, ArithmeticError) as error:
            problems.add(ConfigError(f"{key or schema.__qualname__}: {shortened(str(error), 1000)}"), key)
            return None, {}


def _drop_others_args(defaults: Any, values: Any) -> None:
    """Where the values name another component than the defaults, the defaults' `args` are meant for that other one."""
    if not isinstance(defaults, DictConfig) or defaults._is_none() or not isinstance(values, Mapping):
        return
    if OmegaConf.get_type(defaults) is ComponentConfig:
        name = values.get("name")
        if name is not None and not OmegaConf.is_missing(defaults, "name") and name != defaults["name"]:
            defaults["args"] = {}
        return
    for key, value in values.items():
        if key in defaults and not OmegaConf.is_missing(defaults, key):
            _drop_others_args(defaults._get_node(key), value)


def _instance(schema: type[C], config: Any, key: str, problems: Problems) -> C | None:
    """Build it: rules between fields, of all sections."""
    inside = Problems()
    try:
        return OmegaConf.to_object(config)  # type: ignore[return-value]
    except GymnastError as error:
        found: GymnastError = error
    except OmegaConfBaseException as error:
        reason = shortened(str(error.msg or error).splitlines()[0]).rstrip(".")
        found = ConfigError(f"{_join(key, error.full_key) or schema.__qualname__}: {reason}.")
    except (ValueError, TypeError, AssertionError, ArithmeticError) as error:
        found = ConfigError(f"{key or schema.__qualname__}: {shortened(str(error), 1000)}")
    _check_sections(config, key, inside)
    # A single one is told in the words of the whole.
    for one in inside.found if len(inside.found) > 1 else [found]:
        problems.add(one)
    return None


def _check_sections(config: Any, key: str, problems: Problems) -> None:
    """The rules of the dataclasses inside a config, each of them built alone where nothing in it is wrong."""
    for node, path in _inside(config, key):
        if not isinstance(node, DictConfig | ListConfig) or node._is_none() or node._is_missing():
            continue
        before = len(problems.found)
        _check_sections(node, path, problems)
        kind = OmegaConf.get_type(node)
        if len(problems.found) > before or not is_dataclass(kind) or problems.spoil(path):
            continue
        if OmegaConf.missing_keys(node):
            continue
        try:
            OmegaConf.to_object(node)
        except GymnastError as error:
            problems.add(error, path)
        except (OmegaConfBaseException, ValueError, TypeError, AssertionError, ArithmeticError) as error:
            problems.add(ConfigError(f"{path}: {shortened(str(error), 1000)}"), path)


def _inside(config: Any, key: str) -> list[tuple[Any, str]]:
    """The nodes in a section or list, with their paths."""
    if isinstance(config, ListConfig):
        return [(config._get_node(i), f"{key}[{i}]") for i in range(len(config))]
    return [(config._get_node(name), _join(key, name)) for name in config]


def literal(values: Any) -> Any:
    """The values so written that OmegaConf takes every text as it is, `${...}` included."""
    if isinstance(values, Mapping):
        return {key: literal(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [literal(value) for value in values]
    if isinstance(values, str):
        # A backslash before "${" escapes it, and backslashes before it come in pairs.
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", values)
    return values


def fields_of(schema: Any) -> tuple[Any, dict[str, Any] | None]:
    """The type without its "or None", and the types of its keys if it is a dataclass."""
    if isinstance(schema, types.UnionType) or typing.get_origin(schema) is typing.Union:
        schema = next(member for member in typing.get_args(schema) if member is not type(None))
    if not is_dataclass(schema):
        return schema, None
    hints = typing.get_type_hints(schema)
    return schema, {item.name: hints[item.name] for item in fields(schema) if item.init}


def child(schema: Any, key: str) -> Any:
    """The type under a key of a dataclass, a dict or, by its place, a list; None where it is not known."""
    schema, known = fields_of(schema)
    return known.get(key) if known is not None else element(schema)


def _known(schema: Any, values: Any, path: str, problems: Problems) -> Any:
    """The values without keys that do not exist and without those that are no section, which are told."""
    _, known = fields_of(schema)
    if isinstance(values, list):
        return [_known_element(element(schema), value, f"{path}[{i}]", problems) for i, value in enumerate(values)]
    if not isinstance(values, Mapping):
        return values
    kept = {}
    for key, value in values.items():
        place = _join(path, key)
        if known is not None and key not in known:
            problems.add(ConfigError(f"{place}: {unknown_name('key', str(key), known)}"), place)
        elif (error := _misplaced(child(schema, key), value, place)) is not None:
            problems.add(error, place)
        else:
            kept[key] = _known(child(schema, key), value, place, problems)
    return kept


def _known_element(schema: Any, value: Any, path: str, problems: Problems) -> Any:
    """An element of a list; of a section, what is right of it. OmegaConf would not say where in the list it was."""
    if fields_of(schema)[1] is not None and (error := _misplaced(schema, value, path)) is not None:
        problems.add(error, path)
        return {}
    known = _known(schema, value, path, problems)
    if fields_of(schema)[1] is None or not isinstance(known, Mapping):
        return known
    return _merged(schema, known, path, problems)[1]


def _misplaced(schema: Any, value: Any, path: str) -> ConfigError | None:
    """What is wrong with a value that is no section where there is one, or no truth value."""
    _, known = fields_of(schema)
    if isinstance(value, Mapping):
        is_list = list in (plain(schema), typing.get_origin(plain(schema)))
        keys = ", ".join(map(str, value))
        return ConfigError(f"{path} takes a list: {path}=[...]; not keys: {shortened(keys, 80)}.") if is_list else None
    if plain(schema) is bool and not _says_yes_or_no(value):
        return ConfigError(f"{path} is {shortened(str(value), 80)}; it must be true or false.")
    if known is None and isinstance(value, str) and "${" in value and (kind := _other_than_text(schema)):
        # Escaped, so that it stays a text, it would be a reference to OmegaConf once more.
        return ConfigError(f"{path} is the text {shortened(repr(value))}; it must be {kind}.")
    if known is not None and value is not None and value != "???":
        return ConfigError(f"{path} takes keys ({', '.join(known)}), not the value {shortened(repr(value))}.")
    return None


def _other_than_text(schema: Any) -> str | None:
    """In words what a field takes that takes no text; None for one that does, or whose type is not known."""
    kind = plain(schema)
    words = {int: "an integer", float: "a number", list: "a list", dict: "keys with values"}
    return words.get(typing.get_origin(kind) or kind)


def _says_yes_or_no(value: Any) -> bool:
    """Whether a value stands for a truth value, or is for others to refuse; any number would pass for true."""
    if isinstance(value, str):
        return value.lower() in _TRUTHS or value == "???"
    return value is None or isinstance(value, bool) or value in (0, 1) or not isinstance(value, int | float)


def _texts(schema: Any, values: Any) -> Any:
    """The values, truth values spelt out where the field holds text."""
    schema = plain(schema)
    if schema is str and isinstance(values, bool):
        return str(values).lower()
    if isinstance(values, Mapping):
        return {key: _texts(child(schema, str(key)), value) for key, value in values.items()}
    if isinstance(values, list):
        return [_texts(element(schema), value) for value in values]
    return values


def _without_unsaid(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _without_unsaid(value) for key, value in values.items()}
    return None if values == "???" else values


def _unsaid(values: Any, path: str) -> Iterator[str]:
    """The keys whose value is `???`, which merging would pass over."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _unsaid(value, _join(path, key))
    elif isinstance(values, list):
        for i, value in enumerate(values):
            yield from _unsaid(value, f"{path}[{i}]")
    elif values == "???":
        yield path


def _unlock(node: Any) -> None:
    # Frozen dataclasses become read-only nodes, at every level; what we merge into is our own copy.
    if isinstance(node, DictConfig):
        OmegaConf.set_readonly(node, False)
        for name in node if node._content.__class__ is dict else ():
            _unlock(node._get_node(name))


def _join(*parts: Any) -> str:
    return ".".join(str(part) for part in parts if part)
