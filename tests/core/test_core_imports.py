"""No circles: whatever a module imports, at its top, inside a function or for types only, never leads back to it.
And no file or function that is too long to be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists())
CONTRIB = sorted(path.parent for path in ROOT.glob("contrib/*/gymnast_*/__init__.py"))

MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 60
ALLOWED: Mapping[str, str] = {}
"""What may be longer and why: "package.module" or "package.module.Class.function" -> reason."""

Graph = Mapping[str, set[str]]


def modules(packages: list[Path]) -> dict[str, Path]:
    """File of each module, by its dotted name."""
    found = {}
    for package in packages:
        for file in sorted(package.rglob("*.py")):
            parts = file.relative_to(package.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(name: str, file: Path, known: Mapping[str, object]) -> Iterator[str]:
    """The known modules that a module names in its imports, wherever in the file they stand."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # `from package import module` names the module, not what else the package holds.
            named = [inner if (inner := f"{source}.{alias.name}") in known else source for alias in node.names]
        else:
            continue
        yield from (module for module in named if module in known)


def graph(packages: list[Path]) -> dict[str, set[str]]:
    """The modules that each module imports."""
    known = modules(packages)
    return {name: set(imports(name, file, known)) for name, file in known.items()}


def by_package(edges: Graph) -> dict[str, set[str]]:
    """The other top-level packages that each top-level package imports."""
    found: dict[str, set[str]] = {}
    for name, targets in edges.items():
        package = name.partition(".")[0]
        found.setdefault(package, set()).update({target.partition(".")[0] for target in targets} - {package})
    return found


def circles(edges: Graph) -> list[list[str]]:
    """The shortest way back to itself of each node that has one, a circle once."""
    found: dict[frozenset[str], list[str]] = {}
    for start in sorted(edges):
        ways, seen = [[start]], set()
        while ways:
            way = ways.pop(0)
            for target in sorted(edges.get(way[-1], ())):
                if target == start:
                    found.setdefault(frozenset(way), [*way, start])
                    ways = []
                    break
                if target not in seen:
                    seen.add(target)
                    ways.append([*way, target])
    return list(found.values())


def lengths(name: str, file: Path) -> Iterator[tuple[str, int, int]]:
    """A module and each function in it: its dotted name, its lines, and how many it may have."""
    text = file.read_text(encoding="utf-8")
    yield name, len(text.splitlines()), MOST_LINES

    def inside(node: ast.AST, place: str) -> Iterator[tuple[str, int, int]]:
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own = f"{place}.{part.name}"
                if not isinstance(part, ast.ClassDef):
                    yield own, (part.end_lineno or part.lineno) - part.lineno + 1, MOST_LINES_OF_A_FUNCTION
                yield from inside(part, own)
            else:
                yield from inside(part, place)

    yield from inside(ast.parse(text), name)


def too_long(packages: list[Path]) -> dict[str, str]:
    """What has more lines than it may have."""
    every = (item for name, file in modules(packages).items() for item in lengths(name, file))
    return {name: f"{count} lines, at most {most}" for name, count, most in every if count > most}


def written(found: list[list[str]]) -> str:
    return "\n".join(" -> ".join(way) for way in found)


@pytest.fixture(scope="module")
def edges() -> Graph:
    return graph([ROOT / "gymnast_core", *PLUGINS, *CONTRIB])


def test_every_package_is_looked_at(edges: Graph) -> None:
    packages = by_package(edges)
    assert packages.keys() >= {"gymnast_core", "gymnast_report", "gymnast_remote"}
    assert "gymnast_core.plugins.discovery" in edges["gymnast_core.cli"]
    assert "gymnast_core.training.run" in edges["gymnast_core.cli"], "an import inside a function counts"


def test_no_module_leads_back_to_itself(edges: Graph) -> None:
    found = circles(edges)
    assert not found, written(found)


def test_no_package_leads_back_to_itself(edges: Graph) -> None:
    found = circles(by_package(edges))
    assert not found, written(found)


def test_a_circle_is_found(tmp_path: Path) -> None:
    for name, text in {
        "one/__init__.py": "",
        "one/a.py": "def f():\n    from two import b",
        "one/c.py": "from . import d",
        "one/d.py": "import typing\nif typing.TYPE_CHECKING:\n    from .c import X",
        "two/__init__.py": "",
        "two/b.py": "import one.e",
        "one/e.py": "from two import NAME",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    edges = graph([tmp_path / "one", tmp_path / "two"])
    assert circles(edges) == [["one.c", "one.d", "one.c"]]
    assert circles(by_package(edges)) == [["one", "two", "one"]]


def test_no_file_and_no_function_is_too_long() -> None:
    found = too_long([ROOT / "gymnast_core", *PLUGINS, *CONTRIB])
    assert {name: said for name, said in found.items() if name not in ALLOWED} == {}
    assert {name for name in ALLOWED if name not in found} == set(), "these need no exception any more"
    assert all(len(reason) > 20 for reason in ALLOWED.values())


def test_what_is_too_long_is_found(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "__init__.py").write_text("")
    method = "class A:\n    def f(self):\n" + "        pass\n" * 60
    (tmp_path / "one" / "a.py").write_text(method + "if True:\n    async def g():\n" + "        pass\n" * 59)
    (tmp_path / "one" / "b.py").write_text("\n" * 401)
    assert too_long([tmp_path / "one"]) == {
        "one.a.A.f": "61 lines, at most 60",
        "one.b": "401 lines, at most 400",
    }
