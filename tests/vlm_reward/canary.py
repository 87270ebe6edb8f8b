"""A key that must not be seen anywhere, in every escaping, and a server that repeats it in all that it can send."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

from raw_server import Asked, response

CANARY = "sk-canary-7Hq+/=Zx_90.aB~" + "wv5K3tQ8" * 4


def _each(form: str) -> Callable[[str], str]:
    return lambda key: "".join(form.format(ord(letter)) for letter in key)


ESCAPINGS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "json": json.dumps,
    "json in json": lambda key: json.dumps(json.dumps(key)),
    "json thrice": lambda key: json.dumps(json.dumps(json.dumps(key))),
    "json, ASCII only": _each("\\u{:04x}"),
    "repr": repr,
    "repr of bytes": lambda key: repr(key.encode()),
    "hexadecimal escapes": _each("\\x{:02X}"),
    "octal escapes": _each("\\{:03o}"),
    "URL": lambda key: quote(key, safe=""),
    "form": quote_plus,
    "URL twice": lambda key: quote(quote(key, safe=""), safe=""),
    "URL throughout": _each("%{:02x}"),
    "HTML": html.escape,
    "HTML decimal": _each("&#{};"),
    "HTML hexadecimal": _each("&#x{:X};"),
    "HTML twice": lambda key: html.escape(html.escape("&".join(key)).replace("&amp;", "")),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 of the header": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
    "base64 with a user": lambda key: base64.b64encode(f"ab:{key}!".encode()).decode(),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(key.encode()).decode().rstrip("="),
    "base64, wrapped": lambda key: base64.encodebytes(b"x" * 40 + key.encode()).decode(),
    "hexadecimal": lambda key: key.encode().hex(),
    "capitals": str.upper,
    "wrapped": lambda key: f"{key[:20]}\n{key[20:]}",
    "cut off": lambda key: key[:24],
}


def leaks(text: str | bytes) -> bool:
    """Whether something of the canary can be seen, or worked out."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    tells = {"canary-7Hq", "wv5K3tQ8", CANARY[:12]}
    tells |= {base64.b64encode(CANARY.encode()[i:]).decode()[4:16] for i in range(3)}
    others = [escape(CANARY)[8:40] for name, escape in ESCAPINGS.items() if "base64" not in name]
    seen = {tell.encode() for tell in [*tells, *others]}
    return any(tell in data or tell.lower() in data.lower() for tell in seen if b"\n" not in tell)


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
