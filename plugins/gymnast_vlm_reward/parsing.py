"""From what a model said to a score: strictly, or not at all.

Two forms are read, each with any prose around it: a JSON object with a "score", and a line "Final Score: X" (or, for
two-valued prompts, "Answer: Yes/No"). A number counts only as a whole ("10" is not 1, "0.7" is not 0) and only if it is
one of the prompt's scores; everything in one answer that looks like a verdict must agree. Anything else is unreadable.
Thinking that is told apart from the answer (`<think>` … `</think>`) is no part of it; one without an end is all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from gymnast_core.network.wording import MOST_LETTERS
from gymnast_vlm_reward.completeness import without_thinking

_LABEL = re.compile(r"\bfinal[ \t]*score\b[*_\"'` \t]*[:=][ \t]*", re.IGNORECASE)
_YES_NO = re.compile(r"\banswer[*_\"'` \t]*:[*_\"'`<\[( \t]*(?P<word>yes|no)\b", re.IGNORECASE)
_OPENERS = re.compile(r"[\s*_\"'`<\[(]*")
_NUMERAL = re.compile(r"(?:[01]?\.\d+|[01])(?:/1(?:\.0+)?)?")
# What may follow a number without changing it: closing marks, then the line's end, a full stop, or a reason.
_AFTER = re.compile(
    r"[*_\"'`>\])]*"
    r"(?:\s*$|[.,;!](?!\s*\d)(?:\s|$)|[ \t]*[\r\n]|[ \t]+(?:\(|[-–—][ \t](?!\s*\d)|because\b|since\b|as\b))"
)

_BRACES = re.compile(r"[{}]")
_SCORE_KEY = re.compile(r"\bscore\b", re.IGNORECASE)
_MOST_FAILURES = 32
"""Opening braces that begin no JSON, before a text is given up."""
MOST_REASONING = 4000
"""Letters of the reasons that are kept."""


class Unreadable(ValueError):
    """An answer that holds no single allowed score."""


@dataclass(frozen=True)
class Verdict:
    """A score and the words that came with it."""

    score: float
    reasoning: str


def read_answer(text: str, scores: Sequence[float]) -> Verdict:
    """The verdict in an answer; `Unreadable` with the reason if there is none, or more than one.

    Takes time that grows no faster than the text, of which `MOST_LETTERS` are read.
    """
    if len(text) > MOST_LETTERS:
        raise Unreadable(f"the answer has {len(text)} letters, more than the {MOST_LETTERS} that are read")
    # A text that is JSON throughout holds no thinking, whatever its strings speak of.
    if (whole := _whole_object(text)) is not None:
        objects, said = [whole], text
    else:
        after = without_thinking(text)
        if after is None:
            raise Unreadable(f"thinking that does not end, in {_quote(text)}")
        said = after
        objects = _json_objects(said)
    found = [(_json_score(item["score"], scores), str(item.get("reasoning", ""))[:MOST_REASONING]) for item in objects]
    first = len(said)
    for start, score in _labelled(said, scores):
        found.append((score, said[max(0, start - MOST_REASONING) : start] if start < first else ""))
        first = min(first, start)
    if not found:
        raise Unreadable(f"no score in {_quote(said)}")
    if len({score for score, _ in found}) > 1:
        raise Unreadable(f"contradictory scores in {_quote(said)}")
    return Verdict(found[0][0], " ".join(found[0][1].split()))


def _labelled(text: str, scores: Sequence[float]) -> Iterator[tuple[int, float]]:
    for match in _LABEL.finditer(text):
        yield match.start(), _number_at(text, match.end(), scores)
    if set(scores) == {0.0, 1.0}:
        for match in _YES_NO.finditer(text):
            yield match.start(), float(match["word"].lower() == "yes")


def _number_at(text: str, start: int, scores: Sequence[float]) -> float:
    opener = _OPENERS.match(text, start)
    assert opener is not None  # it matches the empty string, too
    numeral = _NUMERAL.match(text, opener.end())
    if numeral is None or _AFTER.match(text, numeral.end()) is None:
        raise Unreadable(f"no whole number after {_quote(text[max(0, start - 20) : start + 20])}")
    return _allowed(numeral[0].partition("/")[0], scores)


def _json_score(value: object, scores: Sequence[float]) -> float:
    # bool is an int in Python, and `true` says nothing about a scale.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Unreadable(f"the score is {'null' if value is None else type(value).__name__}")
    text = value.strip() if isinstance(value, str) else repr(value)
    if not _NUMERAL.fullmatch(text):
        raise Unreadable(f"the score is {_quote(text)}")
    return _allowed(text.partition("/")[0], scores)


def _allowed(numeral: str, scores: Sequence[float]) -> float:
    number = float(Decimal(numeral))
    if number not in scores:
        raise Unreadable(f"{numeral} is none of the scores {', '.join(f'{score:g}' for score in scores)}")
    return number


def _whole_object(text: str) -> dict[str, object] | None:
    """The object that the text is, from its first letter to its last, if it has a score."""
    stripped = text.strip()
    if not (stripped.startswith("{") and stripped.endswith("}")):
        return None
    try:
        item = _DECODER.decode(stripped)
    except (ValueError, RecursionError):
        return None
    return item if "score" in item else None


def _json_objects(text: str) -> list[dict[str, object]]:
    """The outermost JSON objects with a score, wherever they stand (in a code fence, between prose).

    Raises `Unreadable` for a broken object that speaks of a score, or may be around one: what it would say is unknown.
    """
    found, depth, done = [], 0, 0
    failures: list[int] = []
    start = text.find("{")
    while start >= 0:
        # Braces that belong to no object: one that is still open makes whatever follows a part of it.
        between = text[done:start]
        depth = _depth_after(between, depth)
        try:
            item, done = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            failures.append(start)
            if len(failures) > _MOST_FAILURES:
                break
            depth, done = depth + 1, start + 1
        else:
            if depth:
                raise Unreadable(f"broken JSON in {_quote(text)}")
            if "score" in item:
                found.append(item)
        start = text.find("{", done)
    closes = _closes(text) if failures else {}
    if len(failures) > _MOST_FAILURES or any(_SCORE_KEY.search(text, i, closes.get(i, len(text))) for i in failures):
        raise Unreadable(f"broken JSON in {_quote(text)}")
    return found


def _depth_after(text: str, depth: int) -> int:
    for letter in _BRACES.findall(text):
        depth = depth + 1 if letter == "{" else max(0, depth - 1)
    return depth


def _closes(text: str) -> dict[int, int]:
    """Where each brace that is closed is closed, strings not looked at."""
    opened: list[int] = []
    found = {}
    for brace in _BRACES.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            found[opened.pop()] = brace.end()
    return found


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return dict(pairs)


# Not strict: open models write line breaks into strings as they are.
_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, strict=False)


def _quote(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 80 else f"{text[:40]} … {text[-37:]}")
