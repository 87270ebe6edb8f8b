"""Which answers are complete: those that say so. Lists of what is, not of what is not, and thinking told apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gymnast_core.network.wording import shown

COMPLETE = frozenset({"stop", "eos", "eos_token", "stop_sequence", "end_turn", "stop_token", "complete", "completed"})
"""Reasons to end that mean "said everything", in lower case: OpenAI, Azure, vLLM, SGLang, llama.cpp, Ollama, Gemini,
Mistral and `transformers serve` say "stop"; Text Generation Inference and Together also "eos_token", "stop_sequence"
and "eos"; Anthropic and gateways to it "end_turn"; Cohere "complete"."""


@dataclass(frozen=True)
class Fault:
    """Why an answer cannot hold a verdict."""

    why: str
    refused: bool = False
    """Whether the model was heard, and would not judge."""


CUT_OFF = Fault("the answer was cut off at max_tokens")
EMPTY = Fault("the answer was empty")
_OVERLONG = Fault("the answer was cut off at the end of the model's context")
_FAULTS = {
    "length": CUT_OFF,
    "max_tokens": CUT_OFF,
    "model_length": _OVERLONG,
    "model_context_window_exceeded": _OVERLONG,
    "content_filter": Fault("the answer was withheld by the server's content filter"),
    "refusal": Fault("the model refused", refused=True),
}
_TEXTS = ("text", "output_text")
_OPEN = r"<(?:think|thinking|thought|reasoning|reason|analysis)>|\[THINK\]|◁think▷|<\|channel\|>\s*analysis"
_CLOSE = r"</(?:think|thinking|thought|reasoning|reason|analysis)>|\[/THINK\]|◁/think▷|<\|channel\|>\s*final"
_MARKS = re.compile(f"(?P<open>{_OPEN})|(?P<close>{_CLOSE})", re.IGNORECASE)
_FINAL = re.compile(r"\s*<\|message\|>")


def finish_fault(
    reason: object, field: str, mask: Callable[[str], str], complete: frozenset[str] = COMPLETE
) -> Fault | None:
    """Why an answer that ended for this reason is not complete; None if it is."""
    if not isinstance(reason, str):
        return Fault(f"the server does not say that the answer is complete ({field} is {type(reason).__name__})")
    if reason.lower() in complete:
        return None
    known = _FAULTS.get(reason.lower())
    return known or Fault(f"the answer is not complete ({field} {shown(reason, mask)[:60]!r})")


def content_text(content: object) -> tuple[str, str | None]:
    """Text and refusal in a message's content: a text, or a list of parts, of which thinking is none."""
    if isinstance(content, str):
        return content, None
    texts, refusal = [], None
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, Mapping):
            continue
        kind: Any = part.get("type")
        if kind in _TEXTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "refusal":
            refusal = str(part.get("refusal") or "it did not say why")
    # Parts follow each other without a break: one may end in the middle of a number.
    return "".join(texts), refusal


def without_thinking(text: str) -> str | None:
    """What is said after the thinking; None if the thinking does not end.

    Some chat templates open the thinking themselves, so that only its end is in the text.
    """
    opened, after = 0, 0
    for mark in _MARKS.finditer(text):
        if mark["open"]:
            opened += 1
        else:
            opened, after = 0, mark.end()
    if opened:
        return None
    said = text[after:]
    return said[found.end() :] if after and (found := _FINAL.match(said)) else said
