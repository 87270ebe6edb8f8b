"""Keys: checked when they are read, and masked in all that is told of a server, however it is escaped."""

from __future__ import annotations

import base64
import logging
import os
import re
import urllib.request
from collections.abc import Iterable, Sequence
from html.entities import codepoint2name
from urllib.parse import unquote

from gymnast_core.errors import ConfigError

MASK = "[key]"
LEAST = 4
"""Characters of a secret; shorter ones ("x", "EMPTY" written short) are placeholders, and stand in every text."""
HEAD = 12
"""First characters of a long key that give it away: a text may hold a key that was cut off."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
# Repetitions are bounded, so that no text takes more than a moment: 31 backslashes are five levels of escaping.
_BACKSLASHES = r"\\{1,31}"
_BETWEEN = rf"(?:\s|{_BACKSLASHES}[nrt]|=\r?\n|%0[AaDd]){{0,8}}"
"""What may stand between two characters of a text that somebody wrapped."""
_WRAP = rf"(?:\s|{_BACKSLASHES}[nr]){{0,4}}"
_TAIL = r"[\w\-.%\\&;#+/=~]{0,1000}"
_LOGGERS = ("httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.proxy", "httpcore2.socks")
"""Of the HTTP library. A filter of a logger does not see what the loggers below it say."""


class Secret:
    """A key. It shows only to whom asks for `value`."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return MASK


class Mask:
    """Takes secrets out of texts: raw, or escaped by JSON, Python, URLs, HTML, base64 or hexadecimal, once or often."""

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        known = [secret for secret in secrets if secret is not None and len(secret) >= LEAST]
        patterns = [pattern for secret in known for pattern in _patterns(secret)]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def __call__(self, text: str) -> str:
        """The text with `[key]` in place of every secret."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def __repr__(self) -> str:
        return "Mask()"


class MaskingFilter(logging.Filter):
    """Masks what the HTTP library logs: headers that a server sends back, above all."""

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self._mask = mask

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            return True
        if (masked := self._mask(text)) != text:
            record.msg, record.args = masked, ()
        return True


class quiet:
    """While a client is open, the log lines of the HTTP library, and of other loggers by name, pass the mask."""

    def __init__(self, mask: Mask, others: Sequence[str] = ()) -> None:
        self._filter, self._names = MaskingFilter(mask), (*_LOGGERS, *others)
        for name in self._names:
            logging.getLogger(name).addFilter(self._filter)

    def end(self) -> None:
        for name in self._names:
            logging.getLogger(name).removeFilter(self._filter)


def read_key(
    variable: str | None, purpose: str, option: str, *, needed: bool = True, spaces: bool = False
) -> Secret | None:
    """The key in an environment variable; None where no variable is named, or it is not set and not `needed`. `spaces`
    are allowed in it where servers are known that take them.

    `purpose` says what it is for, e.g. "the model 'gpt-4o'"; `option` is the config's key that names the variable.
    Raises `ConfigError`, which never shows a key: the variable is not set, or what it holds can be no key.
    """
    if variable is None:
        return None
    if _VARIABLE.fullmatch(variable) is None:
        raise ConfigError(
            f"{option} must be the name of an environment variable, e.g. OPENAI_API_KEY, not a key itself: configs are "
            "written to run folders. Put the key into a variable and give the variable's name."
        )
    name = variable if _SHOWN.fullmatch(variable) else f"that {option} names"
    key = os.environ.get(variable, "").strip()
    if not key and not needed:
        return None
    if not key:
        raise ConfigError(
            f"The environment variable {name} is not set: it must hold the key for {purpose}. Try "
            f"`export {name if name == variable else 'NAME'}=…` (another variable: {option}=NAME)."
        )
    if fault := key_fault(key, spaces):
        raise ConfigError(
            f"The environment variable {name} holds no usable key: {fault}. It must be the key alone, in one line. Set "
            f"it anew (another variable: {option}=NAME)."
        )
    return Secret(key)


def key_fault(key: str, spaces: bool = False) -> str | None:
    """What is wrong with a key, without showing it; None if it can be sent."""
    if "\n" in key or "\r" in key:
        return "it has several lines"
    if any(not 0x20 <= ord(letter) < 0x7F for letter in key):
        return "it has control characters, or letters beyond ASCII"
    if not spaces and any(letter.isspace() for letter in key):
        return "it has spaces in it"
    if key[0] in "\"'`" or key[-1] in "\"'`":
        return "it stands in quotes, which do not belong to it"
    return None


def secrets_in(variables: Iterable[str]) -> list[str]:
    """What these environment variables hold, and the logins of the proxies that the environment names: for the mask of
    what a library says that reads its own key."""
    values = [os.environ.get(name, "").strip() for name in variables]
    proxies = [text for url in urllib.request.getproxies().values() for text in secrets_in_address(url)]
    return [value for value in values if value] + proxies


def secrets_in_address(address: str) -> list[str]:
    """User and password in a URL (that of a proxy, say), as written and decoded."""
    userinfo, at, _ = address.partition("://")[2].rpartition("@")
    if not at:
        return []
    user, _, password = userinfo.partition(":")
    return [text for part in (password, user, userinfo) if part for text in (part, unquote(part))]


def _patterns(secret: str) -> list[str]:
    data = secret.encode()
    cores = [core for offset in range(3) if len(core := _core(data, offset)) >= LEAST]
    digits = [f"(?i:{byte:02x})" for byte in data]
    found = [_escaped(secret), *map(_encoded, cores), _WRAP.join(digits)]
    if len(secret) >= 2 * HEAD:
        heads = [_escaped(secret[:HEAD]), *(_encoded(core[:HEAD]) for core in cores), _WRAP.join(digits[:HEAD])]
        # After the wholes: the pattern of a part must not leave the rest standing.
        found += [head + _TAIL for head in heads]
    return found


def _core(data: bytes, offset: int) -> str:
    """Those characters of a base64 text that depend on `data` alone, where `offset` bytes (modulo 3) stand before."""
    text = base64.b64encode(bytes(offset) + data).decode()
    return text[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6]


def _encoded(core: str) -> str:
    """A pattern of a base64 text of either alphabet, wrapped or in a URL."""
    either = {"+": r"(?:[+-]|%2[Bb])", "/": r"(?:\\{0,31}/|_|%2[Ff])"}
    return f"(?i:{_WRAP.join(either.get(letter, letter) for letter in core)})"


def _escaped(text: str) -> str:
    """A pattern of the text in which every character may be escaped, by anything and more than once."""
    return _BETWEEN.join(map(_character, text))


def _character(letter: str) -> str:
    code = ord(letter)
    slashes, amp = _BACKSLASHES, "&(?:amp;){0,5}"
    # A backslash before these makes another character of them.
    plain = f"(?i:{letter})" if letter.isalpha() else re.escape(letter)
    forms = [
        plain if letter in "nrtuxNU0123456789" else rf"\\{{0,31}}{plain}",
        rf"{slashes}u(?i:{code:04x})",
        rf"{slashes}u\{{0{{0,4}}(?i:{code:x})\}}",
        rf"{slashes}x(?i:{code:02x})",
        rf"{slashes}{code:03o}",
        rf"%(?:25){{0,5}}(?i:{code:02x})",
        rf"{amp}#0{{0,5}}{code};",
        rf"{amp}#[xX]0{{0,5}}(?i:{code:x});",
    ]
    if code in codepoint2name:
        forms.append(f"{amp}{codepoint2name[code]};")
    if letter == "'":
        forms.append(f"{amp}apos;")
    if letter == "+":
        forms.append(" ")
    return f"(?:{'|'.join(forms)})"
