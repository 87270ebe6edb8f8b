"""A server that repeats a key, which must not be seen anywhere, in all that it can send."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from raw_server import Asked, response

sys.path.append(str(Path(__file__).parents[1] / "core"))

from escapings import CANARY, ESCAPINGS, leaks

__all__ = ["CANARY", "ESCAPINGS", "faults", "leaks"]


def faults(escaped: str) -> dict[str, Any]:
    """What a server may answer, with the key in it."""
    said = json.dumps({"score": "1", "reasoning": f"for {escaped}"})
    error = {"error": {"message": f"bad {escaped}", "type": escaped, "code": escaped, "param": escaped}}
    return {
        "a verdict": lambda asked: _said(asked, said),
        "no verdict": lambda asked: _said(asked, f"{escaped} is no score"),
        "a reason to end": lambda asked: _said(asked, said, f"because {escaped}"),
        "400": lambda _: response(error, "400 X"),
        "401": lambda _: response(error, "401 X"),
        "500 list": lambda _: response([error], "500 X"),
        "422 detail": lambda _: response({"detail": [{"msg": escaped, "loc": ["body", escaped]}]}, "422 X"),
        "error in 200": lambda _: response(error),
        "a page": lambda _: response(f"<p>{escaped}</p>", kind="text/html"),
        "a text": lambda _: response(escaped, "503 X", "text/plain"),
        "a redirect": lambda _: response("", "302 X", location=f"http://a/{quote(escaped)}"),
        "a header": lambda asked: response(
            asked.completion(said), X_Echo=quote(escaped, safe="&;#+/=\\ '\""), content_encoding=quote(escaped)
        ),
        "no JSON": lambda _: response("{" + escaped),
        "other fields": lambda _: response({"answer": escaped, escaped: 1}),
        "no HTTP": lambda _: escaped.encode() + b"\r\n\r\n",
    }


def _said(asked: Asked, text: str, reason: str = "") -> Any:
    if asked.path.endswith("/messages"):
        return asked.message([{"type": "text", "text": text}], reason or "end_turn")
    return asked.completion(text, reason or "stop")
