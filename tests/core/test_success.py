"""One definition of success: what is above half, in every page, audit and dataset."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from gymnast_core.success import is_success
from gymnast_core.types import Reward
from gymnast_evaluation.agreement import agreement
from gymnast_gate.truth import succeeded
from gymnast_optimizers.iter_sft import IterSFT

ROOT = Path(__file__).parents[2]
JUDGEMENTS = ("value", "outcome", "score", "scores", "first", "second")
"""Names of judgements in the code."""


@pytest.mark.parametrize(("value", "success"), [(0.0, False), (0.5, False), (0.5001, True), (1.0, True)])
def test_half_a_success_is_none(value: float, success: bool) -> None:
    assert is_success(value) is success
    assert succeeded(Reward(value)) is success


def test_two_worlds_are_compared_by_that_definition() -> None:
    """Half in the imagination and none in the simulator: a failure in both."""
    found = agreement(
        ["policy"], np.array([[0.5, 0.75]]), np.array([[0.0, 1.0]]), np.array(["a", "b"]), np.array(["x", "x"])
    )
    assert found is not None and found.same_outcome == 1.0


def test_what_is_trained_on_is_what_is_told() -> None:
    assert not is_success(IterSFT.Config().success_threshold)


def _judged(side: ast.expr) -> bool:
    name = side.attr if isinstance(side, ast.Attribute) else side.id if isinstance(side, ast.Name) else ""
    return name in JUDGEMENTS


def test_nobody_has_a_definition_of_their_own() -> None:
    """No judgement is compared with 0.5 in place: `is_success` does that."""
    found = []
    for top in ("gymnast_core", "plugins", "contrib", "benchmarks"):
        for file in sorted((ROOT / top).rglob("*.py")):
            if "tests" in file.relative_to(ROOT).parts:
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Compare):
                    continue
                sides = [node.left, *node.comparators]
                halves = any(isinstance(side, ast.Constant) and side.value == 0.5 for side in sides)
                if halves and any(map(_judged, sides)):
                    found.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert found == []
