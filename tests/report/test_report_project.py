"""The dependency table of CONTRIBUTING.md, and the report plugin's registration."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_contributing_gives_a_reason_for_exactly_the_dependencies_there_are():
    table = (ROOT / "CONTRIBUTING.md").read_text().split("## Dependencies")[1]
    first_cells = re.findall(r"^\| (?!Package)([^|]+) \|", table, flags=re.MULTILINE)
    documented = {name for cell in first_cells for name in re.sub(r"\*\w+:\*", "", cell).replace(",", " ").split()}
    extras = PROJECT["optional-dependencies"]
    declared = [*PROJECT["dependencies"], *(item for key in ("dev", "mlflow", "ray", "wandb") for item in extras[key])]
    named = {re.match(r"[\w-]+", item).group() for item in declared}
    assert documented == named - {"gymnast"}  # which stands for its own extras


def test_the_report_is_found_through_its_entry_point():
    assert PROJECT["entry-points"]["gymnast.hooks"]["report"] == "gymnast_report.hooks"
