"""docs/architecture.md and README lead to what is there: in two hops from a question to the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8").split("## Architecture")[1].split("\n## ")[0]
FILES = re.compile(r"`((?:gymnast_core|plugins|docs|tests|benchmarks)/[\w/.-]+)`")
WHERE = {
    question.strip(): (file, there)
    for question, file, there in re.findall(r"^\| (.+?) \| `([\w/]+\.py)` \| (.+?) \|$", PAGE, flags=re.MULTILINE)
}


@pytest.mark.parametrize("file", sorted({*FILES.findall(PAGE), *FILES.findall(README)}))
def test_what_is_named_is_there(file: str) -> None:
    assert (ROOT / file).exists()


def names(path: Path) -> set[str]:
    """What a module defines: "function", "NAME", "Class", "Class.method"."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
            found |= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("question", WHERE)
def test_the_answer_is_in_the_file(question: str) -> None:
    file, there = WHERE[question]
    answers = re.findall(r"`([A-Za-z_][\w.]*)`", there)
    sentences = [answer for answer in answers if not answer.endswith(".py")]
    known = names(ROOT / file) | names(ROOT / "gymnast_core" / "interfaces.py")
    assert sentences and set(sentences) <= known


def test_the_four_questions_of_a_reader_are_answered() -> None:
    files = {file for file, _ in WHERE.values()}
    assert files >= {
        "plugins/gymnast_optimizers/grpo.py",
        "gymnast_core/rollouts/sight.py",
        "plugins/gymnast_worldgym/sampling.py",
        "gymnast_core/training/collect.py",
    }
    assert "Optimizer.keep" in next(there for file, there in WHERE.values() if file.endswith("collect.py"))
    assert "docs/architecture.md" in README


def test_every_file_of_the_core_has_its_place() -> None:
    rows = dict(re.findall(r"^\| `(gymnast_core/\w+)/` \| (.+?) \|$", PAGE, flags=re.MULTILINE))
    folders = {path.parent for path in (ROOT / "gymnast_core").glob("*/__init__.py")}
    assert set(rows) == {path.relative_to(ROOT).as_posix() for path in folders}
    for folder in sorted(folders - {ROOT / "gymnast_core" / "testing"}):
        listed = set(re.findall(r"`(\w+)`", rows[folder.relative_to(ROOT).as_posix()]))
        assert {path.stem for path in folder.glob("*.py")} - {"__init__"} <= listed, folder.name
