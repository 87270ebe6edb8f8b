"""A service with OpenAI's interface, asked so that nobody learns a key whom it is not for, and no payment is missed."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import httpx2

from gymnast_core.network.address import certificates, find_proxy, read_address
from gymnast_core.network.billing import MAYBE_BILLED, UNSENT
from gymnast_core.network.secrecy import Mask, quiet, read_key
from gymnast_core.network.vendors import OPENAI
from gymnast_core.network.wording import fit, shown
from gymnast_probe.interfaces import EditorFailed

if TYPE_CHECKING:
    from openai import OpenAI

Answer = TypeVar("Answer")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
"""Before the first further attempt, which each later one doubles, and at most."""
_NEEDED_HEADERS = frozenset({"accept", "accept-encoding", "connection", "content-length", "content-type", "host"})
_LOGGERS = ("openai", "openai._base_client", "openai._response", "openai._legacy_response")
_BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)


class Options(Protocol):
    """What every editor behind a service is told."""

    @property
    def model(self) -> str: ...

    @property
    def base_url(self) -> str | None: ...

    @property
    def api_key_env(self) -> str | None: ...

    @property
    def timeout_s(self) -> float: ...

    @property
    def max_retries(self) -> int: ...


class Service:
    """One model of one server. Raises `ConfigError`, which shows no secret, where it cannot be asked."""

    def __init__(self, config: Options, kind: str, endpoint: str) -> None:
        """`kind` is what errors call it, e.g. "image editor"; `endpoint` is what is added to the base URL."""
        from openai import DefaultHttpxClient, OpenAI

        key_option = f"args.api_key_env of the {kind}"
        self._name, self._config = f"{kind} {config.model!r}", config
        address = read_address(
            config.base_url or OPENAI.base_url, f"args.base_url of the {kind}", endpoint, key_option=key_option
        )
        variable = OPENAI.key_variable(config.api_key_env, address)
        key = read_key(variable, f"the {kind} {config.model!r}", key_option)
        proxy = find_proxy(address)
        self.mask = Mask([None if key is None else key.value, *([] if proxy is None else proxy.secrets)])
        self._headers = {"User-Agent": "gymnast", **OPENAI.payer_headers(address)}
        if key is not None:
            own = {"api-key": key.value} if address.is_azure else {"Authorization": f"Bearer {key.value}"}
            self._headers |= own
        http = DefaultHttpxClient(
            trust_env=False,
            proxy=None if proxy is None else proxy.url,
            verify=certificates(address),
            follow_redirects=False,
            timeout=config.timeout_s,
            # A connection serves one request: one that its server has closed meanwhile would fail the next one.
            limits=httpx2.Limits(max_keepalive_connections=0),
            event_hooks={"request": [self._set_headers]},
        )
        query = dict(part.split("=", 1) for part in address.query.split("&")) if address.query else None
        self._client = OpenAI(
            api_key="none", base_url=address.base, default_query=query, max_retries=0, http_client=http
        )
        self._quiet = quiet(self.mask, _LOGGERS)

    def ask(
        self, request: Callable[[OpenAI], Answer], usd: float | None, budget_usd: float | None = None
    ) -> tuple[Answer, float | None]:
        """The answer to a request, and what all attempts at it cost, `usd` each; None: not known.

        What may be billed though nothing came counts as paid, and nothing is tried again that `budget_usd` cannot pay.
        Raises `EditorFailed`, with that cost and without a secret.
        """
        from openai import OpenAIError

        paid, pause = 0, FIRST_PAUSE_S
        for left in range(self._config.max_retries, -1, -1):
            try:
                return request(self._client), _cost(usd, paid + 1)
            except (OpenAIError, ValueError) as error:  # a ValueError: an answer that is no JSON
                paid += _may_be_billed(error)
                affordable = budget_usd is None or usd is None or usd * (paid + 1) <= budget_usd
                if not (left and affordable and _may_pass(error)):
                    told = self.shown(str(error) or type(error).__name__)
                    raise EditorFailed(f"The {self._name} failed: {told}", cost_usd=_cost(usd, paid)) from None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        raise AssertionError("unreachable")

    def fit(self, text: str) -> str:
        """What the server said, without keys that it repeats."""
        return self.mask(fit(text))

    def shown(self, text: str) -> str:
        """The same in one short line, for an error."""
        return shown(text, self.mask)

    def close(self) -> None:
        self._client.close()
        self._quiet.end()

    def _set_headers(self, request: Any) -> None:
        """Of what the client reads out of the environment (organisation, project, further headers) nothing is sent."""
        for name in [name for name in request.headers if name.lower() not in _NEEDED_HEADERS]:
            del request.headers[name]
        request.headers.update(self._headers)


def _cost(usd: float | None, requests: int) -> float | None:
    if requests == 0:
        return 0.0
    return None if usd is None else usd * requests


def _may_be_billed(error: Exception) -> bool:
    """Whether the service may have done the work that was asked for."""
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        return error.status_code in MAYBE_BILLED
    # What never left cannot have been billed.
    return not (isinstance(error, APIConnectionError) and isinstance(error.__cause__, UNSENT))


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        return error.status_code in _BUSY or error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, APIConnectionError)
