"""Docstrings and tables as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

from markdown.extensions.toc import slugify

_SPECIAL = re.compile(r"([\\*_\[\]<>|#])")


def inline(text: str) -> str:
    """One paragraph in which nothing but `code` is markup."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else _SPECIAL.sub(r"\\\1", part) for part in parts)


def anchor(heading: str) -> str:
    """The fragment by which a page links to a heading: "reinforce" for "reinforce++"."""
    return slugify(heading, "-")


def prose(docstring: str) -> str:
    """A docstring as paragraphs: indented blocks stay as they are, sessions (`>>>`) become Python code."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        lines = block.split("\n")
        if all(line.startswith(">>>") for line in lines):
            paragraphs.append(code("\n".join(line.removeprefix(">>>").removeprefix(" ") for line in lines), "python"))
        elif lines[0].startswith(">>>"):  # with what is printed
            paragraphs.append(code("\n".join(lines), "pycon"))
        elif all(line.startswith("    ") for line in lines):
            paragraphs.append(code(inspect.cleandoc("\n" + block), "text"))
        else:
            paragraphs.append(inline(block))
    return "\n\n".join(paragraphs)


def code(text: str, language: str) -> str:
    """A fenced block, with a fence that the text does not hold."""
    fence = "````" if "```" in text else "```"
    return f"{fence}{language}\n{text.strip(chr(10))}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are Markdown. A bar in `code` does not end a cell, another one is escaped by `inline`."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def narrowing_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose rows become paragraphs on small screens (`assets/style.css`)."""
    return f'<div class="keys" markdown>\n\n{table(head, rows)}\n\n</div>'
