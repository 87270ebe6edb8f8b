"""Plain values -> an instance of a config dataclass, with errors that name the key path."""

import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gymnast_core.config.ranges import check_values, element, plain
from gymnast_core.errors import ConfigError, shortened, unknown_name

C = TypeVar("C")
_TRUTHS = ("true", "false", "yes", "no", "on", "off", "y", "n", "1", "0")


def typed(schema: type[C], values: Mapping[str, Any], key: str = "") -> C:
    """Merge `values` over the defaults of the dataclass `schema` and build it; lists replace lists.

    `key` is the path of `values` in the whole config, e.g. "world_model.args", used in errors. Raises
    `ConfigError` for unknown keys, wrong types, missing mandatory values, numbers outside the range that is declared
    beside their field (`gymnast_core.config.ranges`) and whatever the dataclass refuses.
    """
    _check_keys(schema, values, key)
    try:
        config = OmegaConf.structured(schema)
        _unlock(config)
        config = OmegaConf.merge(config, OmegaConf.create(literal(_texts(schema, dict(values)))))
        missing = sorted({*OmegaConf.missing_keys(config), *_unsaid(values, "")})
        if not missing:
            check_values(schema, OmegaConf.to_container(config, resolve=True), key)
            return OmegaConf.to_object(config)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        reason = shortened(str(error.msg or error).splitlines()[0]).rstrip(".")
        raise ConfigError(f"{_join(key, error.full_key) or schema.__qualname__}: {reason}.") from error
    except (ValueError, TypeError, AssertionError, ArithmeticError) as error:
        raise ConfigError(f"{key or schema.__qualname__}: {shortened(str(error), 1000)}") from error
    paths = [_join(key, name) for name in missing]
    raise ConfigError(f"Missing value: {', '.join(paths)}. Set it in the YAML or with {paths[0]}=VALUE.")


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
    """The type under a key of a dataclass or `dict[str, X]`; None where it is not known."""
    schema, known = fields_of(schema)
    if known is not None:
        return known.get(key)
    return typing.get_args(schema)[1] if typing.get_origin(schema) is dict else None


def _check_keys(schema: Any, values: Any, path: str) -> None:
    _, known = fields_of(schema)
    if isinstance(values, Mapping):
        for key, value in values.items():
            if known is not None and key not in known:
                raise ConfigError(f"{_join(path, key)}: {unknown_name('key', str(key), known)}")
            _check_keys(child(schema, key), value, _join(path, key))
    elif plain(schema) is bool and not _says_yes_or_no(values):
        raise ConfigError(f"{path} is {shortened(str(values), 80)}; it must be true or false.")
    elif known is not None and values is not None:
        raise ConfigError(f"{path} takes keys ({', '.join(known)}), not the value {shortened(repr(values))}.")


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
