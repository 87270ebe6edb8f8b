"""The notebooks run, their kept outputs are of the kind that a run gives, and README begins as the first one does."""

from __future__ import annotations

import re
from pathlib import Path

from gymnast_docs.notebooks import FOLDER, cells, notebook_pages, run, source

ROOT = Path(__file__).parents[2]
FIRST = FOLDER / "first_steps.ipynb"


def test_the_first_steps_run() -> None:
    code = [cell for cell in cells(FIRST) if cell["cell_type"] == "code"]
    for cell, outputs in zip(code, run(FIRST), strict=True):
        kept = [output.get("data", {}).keys() for output in cell["outputs"]]
        assert [output.get("data", {}).keys() for output in outputs] == kept, source(cell)
    assert FIRST.stat().st_size < 100_000


def test_a_notebook_is_a_page() -> None:
    text = notebook_pages()["notebooks/first_steps.md"]
    assert text.startswith("# First steps in Python") and text.count("data:video/mp4;base64,") == 2
    assert "```python\nimport gymnast\n" in text


def test_readme_begins_as_the_notebook_does() -> None:
    examples = re.findall(r"```python\n(import gymnast\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    beginning = next(source(cell) for cell in cells(FIRST) if cell["cell_type"] == "code")
    assert all(example.strip() == beginning.strip() for example in examples)
    assert len(beginning.splitlines()) <= 10
