"""docs/architecture.md and README lead to what is there: in two hops from a question to the code."""

from __future__ import annotations

import ast
import pkgutil
import re
from pathlib import Path

import pytest

from gymnast_core import interfaces, learning, types
from gymnast_core.plugins import hookspecs

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


API_2 = (ROOT / "docs" / "api-2.md").read_text(encoding="utf-8")


def test_the_way_to_api_2_names_what_there_is() -> None:
    """The right-hand side of its tables, and its prose: modules, classes with their fields, hooks."""
    new = re.sub(r"^\| .*? \| ", "", API_2, flags=re.MULTILINE)
    for name in set(re.findall(r"`(gymnast_core(?:\.\w+)+)`", new)):
        assert pkgutil.resolve_name(name)
    public = {**vars(types), **vars(learning), **vars(interfaces), **vars(hookspecs)}
    named = re.findall(r"`(Task|Episode|Rollout|Reward|Advantages|judged|parts)\.(\w+)", new)
    assert len(named) > 10
    for name, member in named:
        owner = name.capitalize()
        known = {*dir(public[owner]), *getattr(public[owner], "__dataclass_fields__", ())}
        assert member in known, f"{owner}.{member}"
    for cls, arguments in re.findall(r"`([A-Z]\w+)\(([\w, =]+)\)`", new):
        fields = [name.partition("=")[0].strip() for name in arguments.split(",")]
        assert fields == list(public[cls].__dataclass_fields__)[: len(fields)], cls
    gone = {"gymnast_trainer", "gymnast_training", "gymnast_rollouts_done"}
    assert set(re.findall(r"`(gymnast_[a-z]+_?[a-z]*)\(event\)`", new)) <= set(public)
    assert not gone & set(public)


def test_a_plugin_of_api_1_is_sent_to_that_page() -> None:
    assert "docs/api-2.md" in (ROOT / "gymnast_core" / "plugins" / "registry.py").read_text()
