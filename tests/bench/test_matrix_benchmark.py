"""benchmarks/matrix.py: every contributed component is in its matrix, and its page says what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gymnast_bench.config import BenchConfig
from gymnast_bench.matrix import cells_of, run_config

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import matrix  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"


def test_every_contributed_component_is_in_the_matrix_and_is_checked() -> None:
    parts = matrix.axes(Path("models"), "http://127.0.0.1:1")
    config = BenchConfig(base="tabletop", axes=parts, overrides=matrix.SMALL)
    cells = [run_config(cell) for cell in cells_of(config)]
    assert len(cells) == 5 * 3 * 3
    used = {part.name for cell in cells for part in (cell.world_model, cell.policy, cell.reward_model, cell.optimizer)}
    assert matrix.contributed() <= used
    assert set(matrix.checked(Path("models"), "http://127.0.0.1:1")) == matrix.contributed()


def test_the_page_says_what_the_numbers_say() -> None:
    data = json.loads((RESULTS / "matrix.json").read_text())
    assert (RESULTS / "matrix.md").read_text() == matrix.page(data)
    assert set(data["checks"]) == matrix.contributed()
    assert all(said.endswith("clauses hold") for said in data["checks"].values())
    for cell in data["cells"]:
        # What no server tells cannot be trained with, and that is all that may fail.
        assert (cell["status"] == "done") == (cell["labels"]["policy"] != "remote")
        assert cell["status"] != "done" or cell["updates"] > 0
        assert cell["status"] == "done" or "remote policy cannot be trained" in cell["reason"]
    assert data["remote"]["remote"] == data["remote"]["shipped"]
