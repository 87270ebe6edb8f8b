"""What a plugin is, in a sentence, read from its source: nothing is imported for a list."""

from __future__ import annotations

import ast
import re
import textwrap
from functools import lru_cache
from pathlib import Path

from gymnast_core.plugins import discovery
from gymnast_core.plugins.discovery import PluginSource

_LONGEST = 110
"""Letters of a sentence in a list; a longer one ends with a word and "…"."""


def summary(source: PluginSource) -> str:
    """The first sentence of the docstring of what an entry point names; "" where its source cannot be read."""
    spec = discovery.locate(source.module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    name = source.target.partition(":")[2].strip()
    try:
        return first_sentence(_docstring(_text(spec.origin), name))
    except (OSError, ValueError, SyntaxError):
        return ""


def first_sentence(docstring: str) -> str:
    """Up to its first full stop that ends a sentence; on one line."""
    paragraph = docstring.strip().split("\n\n")[0].replace("\b", "")
    text = re.split(r"(?<!Dr\.)(?<=[.!?])\s+(?=[A-Z`(])", " ".join(paragraph.split()))[0]
    return text if len(text) <= _LONGEST else textwrap.shorten(text, _LONGEST, placeholder=" …")


@lru_cache(maxsize=64)
def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _docstring(text: str, name: str) -> str:
    """Of the class or function of that name, or of the module itself, whose other statements are not parsed."""
    if name:
        found = re.search(rf"^(?:class|def) {re.escape(name)}\b", text, flags=re.MULTILINE)
        if found is None:
            return ""
        text = text[found.start() :]
    after = re.search(r"\n(?=[^\s#)\"'])", text)
    tree = ast.parse(text[: after.start()] if after else text)
    node = tree.body[0] if name and tree.body else tree
    return ast.get_docstring(node) or ""  # type: ignore[arg-type]
