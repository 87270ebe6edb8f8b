"""YAML whose scalars keep what was typed, so that the field that takes a value decides what it means.

YAML 1.1 makes False of `no`, 750 of `12:30`, 8 of `010`, and cuts `block #2` at the sign. Here an unquoted scalar is a
number, a truth value or null only if it is written as this is printed (`16`, `-0.5`, `true`, `null`); everything else
is text. A field of another type converts the text later (`1e-4`, `yes`); a field that holds text has what was typed.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from gymnast_core.errors import ConfigError

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+")
_WORDS = {"true": True, "false": False, "null": None}
_MAX_LENGTH = 2**20


class _Loader(yaml.SafeLoader):
    """Safe YAML in which plain scalars are read by `scalar`."""


def read_yaml(text: str) -> Any:
    """A YAML text as plain values. Raises `ConfigError` if it is not valid YAML, repeats a key, or refers to parts of
    itself by aliases."""
    if len(text) > _MAX_LENGTH:
        raise ConfigError(f"it has {len(text)} characters, more than the {_MAX_LENGTH} that a config may have")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        at = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{error.problem or error.context}{at}") from error
    except yaml.YAMLError as error:
        raise ConfigError(" ".join(str(error).split())) from error
    except RecursionError:
        raise ConfigError("it is nested too deeply") from None
    except ValueError as error:
        raise ConfigError(str(error)) from error


def read_value(text: str, *, is_text: bool = False) -> Any:
    """The value of an override: a list or mapping in YAML's flow style, a quoted text, or one scalar as it stands.

    `is_text` says that the field holds text, so that brackets are signs like others.
    """
    stripped = text.strip()
    if stripped[:1] in ("'", '"') or (stripped[:1] in ("[", "{") and not is_text):
        try:
            value = read_yaml(stripped)
        except ConfigError:
            # "[red] block" and "'tis" are text; a field that takes a list or keys refuses it by name.
            return text
        # What goes on behind a quote is not a quoted text.
        return value if isinstance(value, list | dict | str) else text
    return scalar(text)


def scalar(text: str) -> Any:
    """An unquoted scalar: an integer, decimal, truth value or None in its printed form, else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and text != "-0":
        return int(text)
    if _DECIMAL.fullmatch(text) and repr(float(text)) == text:
        return float(text)
    return text


def as_number(value: Any) -> Any:
    """What a text means where no field says the type: a number as YAML writes it (`1e-4`), else the text."""
    if isinstance(value, dict):
        return {key: as_number(part) for key, part in value.items()}
    if isinstance(value, list):
        return [as_number(part) for part in value]
    if not isinstance(value, str) or not re.fullmatch(r"[-+]?[0-9.][0-9.]*([eE][-+]?[0-9]+)?", value):
        return value
    try:
        return float(value) if re.search(r"[.eE]", value) else int(value)
    except ValueError:
        return value


def _construct_scalar(loader: _Loader, node: yaml.ScalarNode) -> Any:
    if node.style is not None:
        return node.value
    # A key without a value.
    return None if node.value == "" else scalar(node.value)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    values: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        # Keys are names, whatever they look like.
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if key is None:
            raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key_node.start_mark)
        if key in values:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands there twice", key_node.start_mark
            )
        values[key] = loader.construct_object(value_node, deep=True)
    return values


def _construct_sequence(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    return [loader.construct_object(part, deep=True) for part in node.value]


def _refuse_alias(self: Any, parent: Any, index: Any) -> Any:
    if self.check_event(yaml.AliasEvent):
        event = self.peek_event()
        raise yaml.composer.ComposerError(None, None, "aliases (*name) are not for configs", event.start_mark)
    return yaml.SafeLoader.compose_node(self, parent, index)


_Loader.yaml_implicit_resolvers = {}
_Loader.compose_node = _refuse_alias  # type: ignore[method-assign]
_Loader.add_constructor("tag:yaml.org,2002:str", _construct_scalar)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _construct_sequence)
