"""What every kind of component owes: a config that can be stored and merged, documentation, checkpoints that load."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import pickle
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gymnast_core.errors import GymnastError
from gymnast_core.interfaces import API_VERSION, Trainable
from gymnast_core.testing.contract import Contract, describe


def check_component(contract: Contract, component: Any) -> None:
    """Check the class behind a component: `api_version`, its `Config`, docstrings."""
    cls = type(component)
    schema: Any = getattr(cls, "Config", None)
    contract.expect(cls.api_version == API_VERSION, "api_version", str(API_VERSION), cls.api_version)
    is_schema = inspect.isclass(schema) and dataclasses.is_dataclass(schema)
    contract.expect(is_schema, "Config", "a dataclass `Config`", schema)
    try:
        OmegaConf.structured(schema)
    except Exception as error:
        wanted = "plain types (numbers, str, bool, list, dict, dataclasses, or None), which YAML can hold"
        contract.expect(False, "Config", wanted, describe(error))
    config = _config_of(component, schema)
    try:
        pickle.dumps(config)
    except Exception as error:
        contract.expect(False, "Config", "a config that pickle can store, for worker processes", describe(error))
    contract.verified.append("the config is plain, picklable data")
    written = any(vars(base).get("__doc__") for base in _own_bases(contract, cls))
    contract.expect(written, "Config", f"a docstring under `class {cls.__name__}`", "none")
    bare = [f"{base.__qualname__}.{name}" for base in schema.__mro__ for name in undocumented(base)]
    contract.expect(not bare, "Config", "a docstring under each field, with its unit", f"none under {', '.join(bare)}")
    contract.verified.append("the class and every config field are documented")


def can_save(component: Any) -> bool:
    """Whether the component defines `save`."""
    return type(component).save is not Trainable.save


def reloaded(contract: Contract, component: Any, folder: Path, reload: Callable[[Path], Any] | None) -> Any:
    """The component that `save` wrote, built as a user would: with `checkpoint=FOLDER`; None if it takes none."""
    if reload is not None:
        return reload(folder)
    cls: Any = type(component)
    if "checkpoint" not in {item.name for item in dataclasses.fields(cls.Config)}:
        return None
    config = getattr(component, "config", None)
    try:
        if isinstance(config, cls.Config):
            try:
                return cls(dataclasses.replace(config, checkpoint=str(folder)))
            except GymnastError:
                # What a checkpoint fixes may be refused beside one.
                return cls(cls.Config(checkpoint=str(folder)))
        return cls(cls.Config(checkpoint=str(folder)))
    except Exception as error:
        contract.expect(False, "save", "a folder that `checkpoint` of Config loads again", describe(error))


def _config_of(component: Any, schema: Any) -> Any:
    own = getattr(component, "config", None)
    if isinstance(own, schema):
        return own
    missing = (dataclasses.MISSING, dataclasses.MISSING)
    required = [item for item in dataclasses.fields(schema) if (item.default, item.default_factory) == missing]
    return None if required else schema()


def _own_bases(contract: Contract, cls: type) -> list[type]:
    interface = contract.interface
    return [b for b in cls.__mro__ if isinstance(interface, type) and issubclass(b, interface) and b is not interface]


def undocumented(schema: type) -> list[str]:
    """Fields of this very class without a string literal under them; none if its source is not at hand."""
    if not dataclasses.is_dataclass(schema):
        return []
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(schema))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return []
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    bare = []
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if not (is_text and isinstance(following.value.value, str)):  # type: ignore[union-attr]
                bare.append(statement.target.id)
    return bare
