"""A key that must not be seen anywhere, in every escaping."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

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
