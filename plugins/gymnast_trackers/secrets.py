"""What of a config may leave the machine: values under names of secrets stay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

WITHHELD = "(withheld)"
KEYS = ("WANDB_API_KEY", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Environment variables of the trackers' own libraries that hold secrets."""
_SECRET = re.compile(
    r"(^|[-_.\s]|(?<=[a-z0-9])(?=[A-Z]))(?i:(api|access|auth|secret|private)[-_]?(key|token)s?"
    r"|key|token|secret|password|passwd|credentials?|authorization|bearer)$"
)
"""Names that end in a word for a secret, however words are joined: api_key, x-api-key, apiKey, API_KEYS."""
_IN_QUERY = re.compile(r"(?<=[?&])([^=&?#\s]+)=([^&#\s]*)")
_LOGIN = re.compile(r"(?<=://)(?:[^/@\s?#:]+:(?!\d+/)[^\s?#]*@|[^/@\s]+@)")
"""`user:password@` or `user@` of an address. A password may hold a slash; what follows a host (and port) is a path."""


def without_secrets(values: Any, name: str = "") -> Any:
    """The values with texts under names of secrets (`api_key`, `hf_token`, …), and logins in addresses, also in their
    queries, left out.

    Configs hold no secrets (plugins read theirs from the environment); this is for plugins that break the rule.
    """
    if isinstance(values, Mapping):
        return {key: without_secrets(value, str(key)) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_secrets(value, name) for value in values]
    if isinstance(values, str):
        return WITHHELD if _SECRET.search(name) else _IN_QUERY.sub(_withheld, _LOGIN.sub("", values))
    return values


def _withheld(parameter: re.Match[str]) -> str:
    return f"{parameter[1]}={WITHHELD}" if _SECRET.search(parameter[1]) else parameter[0]


def has_login(address: str) -> bool:
    """Whether an address carries a user's name or password, or a query that may be one: of a web server any, of a
    database a parameter under the name of a secret."""
    if _LOGIN.search(address):
        return True
    before, _, query = address.partition("?")
    names = [part.partition("=")[0] for part in query.split("&")]
    return bool(query) and (before.startswith("http") or any(_SECRET.search(name) for name in names))


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted key -> value; empty mappings vanish, lists stay."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{path}.{key}".lstrip(".")
        found |= flat(value, name) if isinstance(value, Mapping) else {name: value}
    return found
