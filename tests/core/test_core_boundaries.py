"""What keeps the core small and free of favourites."""

import ast
from pathlib import Path

import pytest

import gymnast_core

CORE = Path(gymnast_core.__file__).parent
FILES = sorted(CORE.rglob("*.py"))


def imported_modules(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_core_imports_no_plugin(path):
    plugins = {item.name for item in (CORE.parent / "plugins").iterdir()}
    found = {module.partition(".")[0] for module in imported_modules(ast.parse(path.read_text()))}
    assert not found & plugins


def test_only_discovery_imports_entrypoints():
    users = [path.name for path in FILES if "entrypoints" in imported_modules(ast.parse(path.read_text()))]
    assert users == ["discovery.py"]
