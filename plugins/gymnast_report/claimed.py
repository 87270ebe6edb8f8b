"""What the page of a folder claims: its headline and the facts beside it, for lists of many folders.

Every page follows one rule for its headline (`gymnast_pages.claims`); a list that repeats it claims no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

HEAD = 300_000
"""Characters of a page that are searched; what comes later is videos."""


@dataclass(frozen=True)
class Claimed:
    """The top of a page."""

    headline: str = ""
    """Text of its first heading; "" where there is none."""
    value: float | None = None
    """The number that the headline is about, where the page says it (`data-value`)."""
    facts: dict[str, str] = field(default_factory=dict)
    """What stands beside: "judge", "world", "policy", "algorithm", "n", as the page has it."""


def read_claim(page: Path) -> Claimed:
    """The top of a page; of one that is being written or is none, what there is of it."""
    reader = _Top()
    with page.open(encoding="utf-8", errors="replace") as file:
        reader.feed(file.read(HEAD))
    names = [name for name, _ in reader.facts]
    texts = [" ".join("".join(text).split()) for _, text in reader.facts]
    facts = dict(zip([" ".join("".join(name).split()) for name in names], texts, strict=True))
    return Claimed(" ".join("".join(reader.headline).split()), reader.value, facts)


class _Top(HTMLParser):
    """Reads the first h1 and the first list of facts."""

    def __init__(self) -> None:
        super().__init__()
        self.headline: list[str] = []
        self.value: float | None = None
        self.facts: list[tuple[list[str], list[str]]] = []
        self._into: list[str] | None = None
        self._headings = 0
        self._in_facts = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "h1":
            self._headings += 1
            if self._headings == 1:
                self._into = self.headline
                self.value = _number(known.get("data-value"))
        elif tag == "dl":
            self._in_facts = not self.facts and "facts" in (known.get("class") or "").split()
        elif tag == "dt" and self._in_facts:
            self.facts.append(([], []))
            self._into = self.facts[-1][0]
        elif tag == "dd" and self._in_facts and self.facts:
            self._into = self.facts[-1][1]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h1", "dt", "dd"):
            self._into = None
        elif tag == "dl":
            self._in_facts = False

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into.append(data)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
