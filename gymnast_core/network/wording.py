"""Texts of others, made safe: fit for files and terminals, without keys, and short where they are shown."""

from __future__ import annotations

import re
from collections.abc import Callable

MOST_LETTERS = 100_000
"""Of an answer that is read; a verdict with its reasons has a thousand."""
SHOWN = 300
_TAGS = re.compile(r"<(?:script|style)\b[^>]{0,1000}>.{0,20000}?</(?:script|style)>|<[^<>]{0,1000}>", re.I | re.S)
# Line breaks and tabs stay; the rest moves cursors, ends strings or is one half of a letter.
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def fit(text: str) -> str:
    """The text as UTF-8 can hold it: pairs of surrogates joined, single ones and control characters replaced."""
    if _UNFIT.search(text) is None:
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _UNFIT.sub("\ufffd", joined)


def shown(text: str, mask: Callable[[str], str]) -> str:
    """For an error message: one line, masked, no longer than `SHOWN`."""
    line = " ".join(mask(fit(text[: 20 * SHOWN])).split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def without_tags(page: str) -> str:
    """What a reader sees of an HTML page."""
    return " ".join(_TAGS.sub(" ", page[: 200 * SHOWN]).split())
