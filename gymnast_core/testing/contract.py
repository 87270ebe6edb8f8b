"""Expectations that name the clause of the contract they come from."""

from __future__ import annotations

import dataclasses
import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gymnast_core.errors import ContractError, DataError
from gymnast_core.interfaces import Dataset, Optimizer, Policy, RewardModel, WorldModel


class Contract:
    """Expectations on one component; `verified` grows with each clause that holds.

    The contract is written in the docstrings of `interface`: a class of `gymnast_core.interfaces`, or `hookspecs`.
    """

    def __init__(self, component: Any, interface: type | ModuleType, label: str | None = None) -> None:
        self.label = label or type(component).__name__
        self.interface = interface
        self.verified: list[str] = []
        if isinstance(interface, type) and not isinstance(component, interface):
            raise ContractError(f"{self.label} is not a {interface.__name__} of gymnast_core.interfaces.")

    def expect(self, holds: bool, method: str, expected: str, got: object) -> None:
        if not holds:
            got = f"{str(got)[:400]} …" if len(str(got)) > 400 else got
            raise ContractError(f"{self.label}.{method}: expected {expected}; got {got}. See {self.place(method)}.")

    def place(self, method: str) -> str:
        """Where the clause is written."""
        if isinstance(self.interface, ModuleType):
            return f"{self.interface.__name__}.{method}" if hasattr(self.interface, method) else self.interface.__name__
        for owner in self.interface.__mro__:
            own = {*vars(owner), *vars(owner).get("__annotations__", {})}
            if owner.__module__ == self.interface.__module__ and method in own:
                return f"{owner.__module__}.{owner.__name__}.{method}"
        return f"{self.interface.__module__}.{self.interface.__name__}"

    @contextmanager
    def working(self, method: str, expected: str, passing: type[Exception] = ContractError) -> Iterator[None]:
        """What the component raises inside, but `passing`, is a breach that names the line it came from."""
        try:
            yield
        except passing:
            raise
        except Exception as error:
            self.expect(False, method, expected, describe(error))

    def tensor(self, value: Any, method: str, name: str, shape: Sequence[int], dtype: torch.dtype) -> None:
        got = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        is_right = isinstance(value, Tensor) and tuple(value.shape) == tuple(shape) and value.dtype == dtype
        self.expect(is_right, method, f"{name} to be {tuple(shape)} {dtype}", got)
        self.expect(bool(torch.isfinite(value).all()), method, f"{name} to be finite", "NaN or infinity")

    @contextmanager
    def untouched(self, method: str, **inputs: Any) -> Iterator[None]:
        """The inputs and the global random state are the same before and after."""
        before = {name: [tensor.clone() for tensor in tensors_in(value)] for name, value in inputs.items()}
        random_state = torch.random.get_rng_state()
        yield
        for name, tensors in before.items():
            after = tensors_in(inputs[name])
            same = len(after) == len(tensors) and all(map(_same, tensors, after))
            self.expect(same, method, f"{name} to be left as it was", "modified values")
        same = torch.equal(random_state, torch.random.get_rng_state())
        self.expect(same, method, "randomness from `generator` only", "draws from the global generator")


def expect_close(
    contract: Contract, method: str, expected: str, found: Tensor, wanted: Tensor, tolerance: float
) -> None:
    gap = float((found.detach().float() - wanted.detach().float()).abs().max())
    contract.expect(gap <= tolerance, method, f"{expected} (within {tolerance})", f"a difference of {gap:.3g}")


def close(first: float | None, second: float | None, tolerance: float) -> bool:
    if first is None or second is None:
        return first is second
    return abs(first - second) <= tolerance


@contextmanager
def raises(contract: Contract, method: str, expected: str, error_class: type[Exception] = DataError) -> Iterator[None]:
    try:
        yield
    except error_class:
        return
    except Exception as error:
        contract.expect(False, method, expected, describe(error))
    contract.expect(False, method, expected, "no error")


def describe(error: BaseException) -> str:
    """An exception with the line that raised it."""
    where = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__name__}: {error}" + "".join(f" ({frame.filename}:{frame.lineno})" for frame in where)


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in nested lists, mappings and dataclasses, in a fixed order."""
    if isinstance(value, Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = [getattr(value, item.name) for item in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for item in value for tensor in tensors_in(item)] if isinstance(value, list | tuple) else []


def same_state(first: Any, second: Any) -> bool:
    """Whether two nested states hold the same; a list is as good as a tuple, and NaN is NaN."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        alike = first.shape == second.shape and first.dtype == second.dtype
        return alike and bool(torch.allclose(first.cpu(), second.cpu(), rtol=0.0, atol=0.0, equal_nan=True))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same_state(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same_state, first, second))
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return not isinstance(first, Tensor) and not isinstance(second, Tensor) and bool(first == second)


def size_of(component: Any, name: str, default: int) -> int:
    own = getattr(component, name, getattr(getattr(component, "config", None), name, default))
    return own if isinstance(own, int) else default


def instance(component: Any) -> Any:
    # A policy is callable, too: only what is not a component yet is a function that builds one.
    is_built = isinstance(component, WorldModel | Policy | RewardModel | Optimizer | Dataset)
    return component() if callable(component) and not is_built else component


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors hold the same, unknown values (NaN) included."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return bool(((first == second) | (first.isnan() & second.isnan())).all())
