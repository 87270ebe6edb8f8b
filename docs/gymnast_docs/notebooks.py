"""Notebooks: run in one process, and written as pages with their outputs.

python -m gymnast_docs.notebooks docs/notebooks/first_steps.ipynb      (in docs/: runs it and keeps the outputs)
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "notebooks"


def notebook_pages() -> dict[str, str]:
    """Markdown by path inside the documentation, a page a notebook."""
    return {f"notebooks/{file.stem}.md": page(file) for file in sorted(FOLDER.glob("*.ipynb"))}


def page(file: Path) -> str:
    """A notebook with its kept outputs."""
    parts = [part for cell in cells(file) for part in _shown(cell)]
    return "\n\n".join([*parts, f"[This page as a notebook]({file.name})"]) + "\n"


def cells(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return found


def source(cell: Mapping[str, Any]) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def run(file: Path) -> list[list[dict[str, Any]]]:
    """The outputs of each code cell, run one after the other in the working directory of this process."""
    names: dict[str, Any] = {"__name__": "__main__"}
    return [_run_cell(source(cell), names) for cell in cells(file) if cell["cell_type"] == "code"]


def _run_cell(text: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    tree, printed, value = ast.parse(text), io.StringIO(), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue()})
    if value is not None:
        html = {"text/html": value._repr_html_()} if hasattr(value, "_repr_html_") else {}
        data = {"text/plain": type(value).__name__ if html else repr(value), **html}
        outputs.append({"output_type": "execute_result", "metadata": {}, "data": data, "execution_count": None})
    return outputs


def _shown(cell: Mapping[str, Any]) -> Sequence[str]:
    if cell["cell_type"] != "code":
        return [source(cell)]
    found = [f"```python\n{source(cell)}\n```"]
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "text/html" in data:
            found.append("".join(data["text/html"]))
        else:
            found.append(f"```text\n{''.join(output.get('text') or data['text/plain']).rstrip()}\n```")
    return found


def main() -> None:
    """Run the notebooks that are named, and keep their outputs."""
    for file in map(lambda name: Path(name).resolve(), sys.argv[1:]):
        content = json.loads(file.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            outputs = iter(run(file))
        for cell in content["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"] = next(outputs)
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        temporary = file.with_suffix(".new")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)


if __name__ == "__main__":
    main()
