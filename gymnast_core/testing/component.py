"""What every kind of component owes: its API version, a config that can be stored and merged, documentation, a state
that goes on, parts that it takes, an end, and checkpoints that load."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import pickle
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor, nn

from gymnast_core.config.ranges import check_values, undeclared
from gymnast_core.errors import GymnastError
from gymnast_core.hub import config_of_saved
from gymnast_core.interfaces import API_VERSION, Optimizer, Parts, Policy, RewardModel, Trainable, WorldModel
from gymnast_core.runs.snapshot import load_latest_snapshot, save_snapshot
from gymnast_core.testing.contract import Contract, describe, same_state

_RANGES = (
    "a range beside each number, e.g. `rate: Annotated[float, Range(above=0)] = 0.1` or `rounds: Count = 1` "
    "(gymnast_core.config.ranges)"
)


def check_component(contract: Contract, component: Any, *, with_state: bool = True) -> None:
    """Check what all kinds owe: `api_version`, `Config`, docstrings, `attach`, `close` and, `with_state`, the state.

    It comes last: the component is closed.
    """
    cls = type(component)
    declared = getattr(cls, "api_version", None)
    wanted = f"{API_VERSION}, said in the class (`api_version = {API_VERSION}`)"
    contract.expect(declared == API_VERSION, "api_version", wanted, declared)
    check_config(contract, cls)
    _check_free(contract, cls)
    kept = getattr(component, "config", None)
    contract.expect(isinstance(kept, cls.Config), "config", "the config that it was built from, `self.config`", kept)
    try:
        pickle.dumps(kept)
    except Exception as error:
        contract.expect(False, "Config", "a config that pickle can store, for worker processes", describe(error))
    contract.verified.append("the config is kept, plain, picklable data")
    written = any(vars(base).get("__doc__") for base in _own_bases(contract, cls))
    contract.expect(written, "Config", f"a docstring under `class {cls.__name__}`", "none")
    contract.verified.append("the class and every config field are documented, numbers with their ranges")
    if with_state:
        check_state(contract, component)
    with contract.working("attach", "to take the parts of a run, those that there are"):
        component.attach(_alone(component))
    with contract.working("close", "to be called, and called again"):
        component.close()
        component.close()
    contract.verified.append("it takes parts that may be None, and may be closed twice")


def _check_free(contract: Contract, cls: Any) -> None:
    """That `free_on_resume` names arguments."""
    free, known = cls.free_on_resume, {item.name for item in dataclasses.fields(cls.Config)}
    wanted = 'a tuple of arguments of Config (or "device"), e.g. ("device", "max_usd")'
    fits = isinstance(free, tuple) and all(isinstance(name, str) for name in free)
    contract.expect(fits, "free_on_resume", wanted, repr(free))
    # What is inherited may name more than one class has.
    unknown = [name for name in vars(cls).get("free_on_resume", ()) if name not in known | {"device"}]
    contract.expect(not unknown, "free_on_resume", wanted, f"no argument {', '.join(unknown)}")


def _alone(component: Any) -> Parts:
    """A run of which only this part is there."""
    kinds = {"policy": Policy, "world_model": WorldModel, "reward_model": RewardModel, "optimizer": Optimizer}
    return Parts(**{key: component for key, kind in kinds.items() if isinstance(component, kind)})


def check_config(contract: Contract, owner: Any) -> None:
    """Check the `Config` of a class or of a hook module: frozen, plain, documented."""
    schema = getattr(owner, "Config", None)
    is_schema = inspect.isclass(schema) and dataclasses.is_dataclass(schema)
    contract.expect(is_schema, "Config", "a dataclass `Config`", schema)
    frozen = schema.__dataclass_params__.frozen  # type: ignore[union-attr]
    contract.expect(frozen, "Config", "a frozen dataclass: @dataclass(frozen=True)", "one that can be changed")
    try:
        defaults = OmegaConf.to_container(OmegaConf.structured(schema))
    except Exception as error:
        wanted = "plain types (numbers, str, bool, list, dict, dataclasses, or None), which YAML can hold"
        contract.expect(False, "Config", wanted, describe(error))
    without = undeclared(schema)
    contract.expect(not without, "Config", _RANGES, f"none beside {', '.join(without)}")
    with contract.working("Config", "defaults within the ranges that are declared"):
        check_values(schema, defaults)
    bases = schema.__mro__  # type: ignore[union-attr]
    bare = [f"{base.__qualname__}.{name}" for base in bases for name in undocumented(base)]
    contract.expect(not bare, "Config", "a docstring under each field, with its unit", f"none under {', '.join(bare)}")


def check_state(contract: Contract, component: Any) -> None:
    """Check that what `state_dict` returns goes through a snapshot, into this component and into a new one."""
    is_module = isinstance(component, nn.Module)
    takes_over = "to take over what a snapshot holds of state_dict()"
    with contract.working("state_dict", "nested dicts and lists of tensors, numbers, strings and None"):
        # Weights come back by `save` and `checkpoint`; a large policy's would not fit beside it.
        state = component.state_dict()
        stored = _through_a_snapshot(_hollow(state) if is_module else state)
    if is_module:
        with contract.working("load_state_dict", takes_over):
            component.load_state_dict(component.state_dict())
        contract.verified.append("its state fits into a snapshot and goes back")
        return
    with contract.working("load_state_dict", takes_over):
        component.load_state_dict(stored)
    again = component.state_dict()
    contract.expect(same_state(again, stored), "load_state_dict", f"the state {_short(stored)}", _short(again))
    contract.verified.append("its state goes through a snapshot and back")
    if stored:
        _check_continues(contract, component, stored, takes_over)


def _check_continues(contract: Contract, component: Any, stored: Mapping[str, Any], takes_over: str) -> None:
    with contract.working("Config", "to be built as Component(config)"):
        fresh = type(component)(component.config)
    try:
        was_so = same_state(fresh.state_dict(), stored)
        with contract.working("load_state_dict", takes_over):
            fresh.load_state_dict(stored)
        found = fresh.state_dict()
        wanted = f"a new one to continue from the state {_short(stored)}"
        contract.expect(same_state(found, stored), "load_state_dict", wanted, _short(found))
    finally:
        fresh.close()
    not_shown = "not shown: that a resumed one continues, since its state was that of a new one"
    contract.verified.append(not_shown if was_so else "a new one continues from its state")


def _hollow(state: Any) -> Any:
    """The same structure, its tensors empty."""
    if isinstance(state, Tensor):
        return state.new_empty(0)
    if isinstance(state, Mapping):
        return {key: _hollow(value) for key, value in state.items()}
    return [_hollow(value) for value in state] if isinstance(state, list | tuple) else state


def _through_a_snapshot(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state as a snapshot gives it back."""
    with tempfile.TemporaryDirectory() as folder:
        save_snapshot(Path(folder), 0, {"state": state})
        return (load_latest_snapshot(Path(folder)) or {})["state"]


def _short(state: Any) -> str:
    text = str(state)
    return text if len(text) <= 160 else f"{text[:160]} …"


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
    try:
        try:
            return cls(config_of_saved(component.config, folder))
        except GymnastError:
            # What a checkpoint fixes may be refused beside one.
            return cls(cls.Config(checkpoint=str(folder)))
    except Exception as error:
        contract.expect(False, "save", "a folder that `checkpoint` of Config loads again", describe(error))


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
