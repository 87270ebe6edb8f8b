"""What a server's response means: an answer, or an error in its own words. Nothing in it is believed without a look."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from time import time
from typing import Any
from urllib.parse import urlsplit

from gymnast_core.network.billing import MAYBE_BILLED
from gymnast_core.network.secrecy import Mask
from gymnast_core.network.wording import shown, without_tags
from gymnast_vlm_reward.provider import AskError
from gymnast_vlm_reward.wire import Response

_DIGITS = 18
"""Of integers that are read as such; what counts tokens has fewer."""
_USED_UP = ("insufficient_quota", "insufficient_balance", "billing_hard_limit", "billing_not_active", "credit balance")
_LEAVES = 20


def body_of(response: Response, mask: Mask) -> dict[str, Any]:
    """The JSON object of a successful response. Raises `AskError` for everything else, in the server's words."""
    status = response.status
    if 300 <= status < 400:
        raise _redirected(response, mask)
    if status >= 400:
        raise status_error(status, _parsed(response.content), response, mask)
    try:
        body = _loads(response.content)
    except (ValueError, RecursionError):
        raise _unreadable(response, mask) from None
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    if not isinstance(body, dict):
        said = shown(json.dumps(body)[:1000], mask)
        raise AskError(f"The server's answer is no object: {said}", retry=True, doubtful=True)
    if reported := body.get("error"):
        raise status_error(_status_in(reported), body, response, mask)
    return body


def status_error(status: int, body: Any, response: Response, mask: Mask) -> AskError:
    """What an error status means; one inside a response of status 200 likewise (0: it gives none)."""
    text = _text(response.content)
    said = words_of(body) or without_tags(text) if body is not None or text else ""
    unpaid = status == 402 or any(word in said for word in _USED_UP)
    hint = ""
    if unpaid:
        hint = " The account with the vendor is used up: add credit there."
    elif status in (401, 403):
        hint = " Check the key: reward_model.args.api_key_env names its variable; a server of others is sent none else."
    elif status in (404, 405):
        hint = " Check reward_model.args.model and base_url."
    label = (
        f"HTTP {status}" if response.status == status else f"The server reports an error{f' {status}' * bool(status)}"
    )
    return RefusedError(
        f"{label}: {shown(said.removeprefix(f'{status} ') or 'without a word', mask).rstrip('.')}.{hint}",
        status=status,
        body=body,
        retry=(status in (0, 408, 425, 429) or status >= 500) and not unpaid,
        fatal=bool(hint),
        stray=bool(hint) and not unpaid,
        doubtful=status in MAYBE_BILLED,
        retry_after=retry_after(response.headers),
    )


class RefusedError(AskError):
    """The server answered with an error."""

    def __init__(self, message: str, *, status: int, body: Any, **kinds: Any) -> None:
        super().__init__(message, **kinds)
        self.status = status
        self._body = body

    def names(self, fields: Sequence[str]) -> str | None:
        """Which of the request's fields it is about, as `param` or `loc` says, or else a name in quotes; None: none."""
        leaves = list(_leaves(self._body))
        for key, value in leaves:
            if key in ("param", "loc") and (found := next((f for f in fields if f == value.split(".")[0]), None)):
                return found
        for field in fields:
            name = re.compile(rf"[\"'`]{re.escape(field)}[\"'`.]" + (rf"|\b{field}\b" if len(field) > 3 else ""))
            if any(name.search(value) for _, value in leaves):
                return field
        return None


def words_of(body: Any) -> str:
    """The texts of an error body, wherever it keeps them: `error`, `detail`, `message`, in lists or not."""
    seen: list[str] = []
    for key, value in _leaves(body):
        wanted = key in ("code", "type", "message", "msg", "detail", "error", "title", "reason", "errors", "status")
        if wanted and value and value not in ("error", "None") and value not in seen:
            seen.append(value)
    if not seen and body is not None:
        return json.dumps(body)[:2000] if body else ""
    return " ".join(seen)


def _leaves(body: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Texts and numbers of a body by the last key above them; the first few of each list, not too deep."""
    if depth > 6:
        return
    if isinstance(body, Mapping):
        for name, value in list(body.items())[:_LEAVES]:
            yield from _leaves(value, str(name), depth + 1)
    elif isinstance(body, list):
        for value in body[:_LEAVES]:
            yield from _leaves(value, key, depth + 1)
    elif isinstance(body, str | int | float) and not isinstance(body, bool):
        yield key, str(body)[:5000]


def _status_in(error: Any) -> int:
    """The HTTP status that an error object gives as its code; 0 if it gives none."""
    item = error[0] if isinstance(error, list) and error else error
    for name in ("code", "status", "status_code"):
        value = item.get(name) if isinstance(item, Mapping) else None
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return 0


def _redirected(response: Response, mask: Mask) -> AskError:
    # Not followed: a key and the frames are for the server that the user named.
    try:
        goal = urlsplit(response.headers.get("location", ""))
        place = f"{goal.scheme}://{goal.hostname}" if goal.hostname else ""
        place += f"{f':{goal.port}' if goal.port else ''}{goal.path}"
    except ValueError:
        place = "an address that cannot be read"
    return AskError(
        f"HTTP {response.status}: the server redirects to {shown(place or 'nowhere', mask)}. Redirects are not "
        "followed: check reward_model.args.base_url."
    )


def _unreadable(response: Response, mask: Mask) -> AskError:
    text = _text(response.content).strip()
    kind = response.headers.get("content-type", "").lower()
    if text.startswith("<") or "html" in kind:
        return AskError(
            f"The server answered with a page, not with JSON: {shown(without_tags(text) or 'an empty one', mask)} Is "
            "reward_model.args.base_url right? Does a sign-in page stand in between?",
            retry=True,
        )
    said = f"it begins {shown(text[:100], mask)!r}" if text else f"HTTP {response.status} without a word"
    # A JSON that ends early is an answer that was given, and may be billed.
    return AskError(f"The server's answer cannot be read as JSON: {said}.", retry=True, doubtful=True)


def _parsed(content: bytes) -> Any:
    try:
        return _loads(content)
    except (ValueError, RecursionError):
        return None


def _loads(content: bytes) -> Any:
    text = content.decode(json.detect_encoding(content), "surrogatepass").removeprefix("\ufeff")
    return json.loads(text, parse_int=_integer, object_pairs_hook=_agreeing)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def _agreeing(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ValueError(f"two values for {key[:40]!r}")
        found[key] = value
    return found


def _text(content: bytes) -> str:
    return content[:100_000].decode("utf-8", "replace")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the headers ask to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110)."""
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(milliseconds) / 1000)
        if (text := headers.get("retry-after")) is None:
            return None
        try:
            return max(0.0, float(text))
        except ValueError:
            # The server's own clock, where it tells the time: ours may be wrong.
            sent = headers.get("date")
            now = time() if sent is None else parsedate_to_datetime(sent).timestamp()
            return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def token_count(value: object) -> int | None:
    """A count as a server gave it; None for anything that is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
