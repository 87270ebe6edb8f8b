"""What the source says and the objects do not keep: docstrings under fields, signatures as they are written."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Member:
    """A function, or an annotated name, of a class or module."""

    name: str
    declaration: str
    """As written, without body; of its decorators, only `@property`."""
    doc: str
    """Its docstring, or the literal under it; empty without one."""
    is_function: bool


def members(owner: Any) -> list[Member]:
    """The public members that a class or module defines itself, in its order."""
    text = textwrap.dedent(inspect.getsource(owner))
    tree: Any = ast.parse(text)
    body = tree.body if inspect.ismodule(owner) else tree.body[0].body
    found = [_member(text, node, after) for node, after in zip(body, [*body[1:], None], strict=True)]
    return [member for member in found if member is not None and not member.name.startswith("_")]


def field_docs(cls: type) -> dict[str, str]:
    """Docstrings under the fields of a class and its bases, by field."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        if base.__module__ != "builtins":
            found |= {member.name: member.doc for member in members(base) if member.doc and not member.is_function}
    return found


def _member(text: str, node: ast.stmt, after: ast.stmt | None) -> Member | None:
    if isinstance(node, ast.FunctionDef):
        properties = [decorator.lineno for decorator in node.decorator_list if ast.unparse(decorator) == "property"]
        first = min([node.lineno, *properties])
        lines = text.splitlines()[first - 1 : node.body[0].lineno - 1]
        declaration = textwrap.dedent("\n".join(lines)).rstrip().removesuffix(":")
        return Member(node.name, declaration, ast.get_docstring(node) or "", True)
    target = (
        node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
    )
    if not isinstance(target, ast.Name):
        return None
    is_text = (
        isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    )
    doc = inspect.cleandoc(after.value.value) if is_text else ""  # type: ignore[union-attr]
    return Member(target.id, ast.get_source_segment(text, node) or "", doc, False)
