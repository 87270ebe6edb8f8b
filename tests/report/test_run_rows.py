"""A folder of runs as rows."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from gymnast_core.config import RunConfig, load_config, to_yaml
from gymnast_evaluation.results import Evaluation
from gymnast_report.runs import run_row, run_rows
from gymnast_report.viewing import start_page


def test_a_training_in_its_first_iteration_is_a_row_like_any_other(tmp_path: Path) -> None:
    """It was measured before, and has no number of its own yet; it must not hide the other runs."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(to_yaml(load_config(RunConfig, "tabletop", [])))
    names = {"label": "before", "iteration": 0, "world": "gymnasium", "reward_model": "environment"}
    numbers = {"temperature": 0.0, "horizon": 16, "seed": 0, "n": 4, "unscored": 0, "rate": 0.5, "interval": (0.1, 0.9)}
    found = Evaluation(**names, **numbers, seconds=1.0, episodes=())  # type: ignore[arg-type]
    (tmp_path / "first/evaluations").mkdir()
    (tmp_path / "first/evaluations/before.json").write_text(json.dumps(asdict(found)))
    assert len(run_rows(tmp_path)) == 2
    row = run_row(tmp_path / "first", tmp_path)
    assert "<circle" in str(row) and "at last" not in str(row)


def test_a_folder_without_a_page_is_listed_without_a_link(tmp_path: Path) -> None:
    for kind in ("collect", "evaluate"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "config.yaml").write_text(f"kind: {kind}\n")
    assert {row.name: row.page for row in run_rows(tmp_path)} == {
        "collect": "", "evaluate": "evaluate/evaluation.html",
    }  # fmt: skip
    page = start_page(tmp_path)
    assert 'href="evaluate/evaluation.html"' in page and 'href=""' not in page and "collect <span" in page
