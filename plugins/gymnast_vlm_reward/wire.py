"""One request, one connection, one bounded answer: how judges behind a network are asked.

A connection is never used twice. Bytes that a server sends beyond an answer would otherwise be read as the next one.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from gymnast_core.network.address import Address, Proxy, certificates, find_proxy
from gymnast_core.network.billing import UNSENT
from gymnast_core.network.secrecy import Mask, quiet
from gymnast_core.network.wording import shown
from gymnast_vlm_reward.provider import AskError

MOST_BYTES = 8 * 2**20
"""Of an answer; a thousand times what the longest verdict takes."""
CONNECT_S = 30.0
_GZIP_TOO = zlib.MAX_WBITS | 32


@dataclass(frozen=True)
class Response:
    """What a server sent."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Wire:
    """Posts JSON to one server. Opened at the first request, again after `close`."""

    def __init__(self, address: Address, headers: Mapping[str, str], timeout_s: float, mask: Mask) -> None:
        """Raises `ConfigError` for proxies and certificates that cannot be used."""
        self._proxy: Proxy | None = find_proxy(address)
        self._certificates = certificates(address)
        self._address, self._timeout_s = address, timeout_s
        self.mask = mask
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "Content-Type": "application/json",
            "User-Agent": "gymnast",
            **headers,
        }
        self._client: httpx2.AsyncClient | None = None
        self._quiet: quiet | None = None

    async def post(self, path: str, body: Mapping[str, Any]) -> Response:
        """Raises `AskError` where there is no answer, and for one that is too long."""
        # Images make megabytes: to write them down must not hold up the other requests.
        content = await asyncio.to_thread(_encoded, body)
        try:
            async with self._open().stream(
                "POST", self._address.url(path), content=content, headers=self._headers
            ) as response:
                received = await _received(response, self.mask)
        except httpx2.TimeoutException as error:
            raise AskError("The request timed out.", retry=True, doubtful=not isinstance(error, UNSENT)) from None
        except httpx2.TransportError as error:
            raise self._failed(error) from None
        return Response(response.status_code, dict(response.headers), received)

    async def close(self) -> None:
        if self._client is not None and self._quiet is not None:
            await self._client.aclose()
            self._quiet.end()
            self._client = None

    def _open(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                # What the environment says was read when the judge was built, and checked.
                trust_env=False,
                proxy=None if self._proxy is None else self._proxy.url,
                verify=self._certificates,
                follow_redirects=False,
                timeout=httpx2.Timeout(self._timeout_s, connect=min(CONNECT_S, self._timeout_s)),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            )
            self._quiet = quiet(self.mask)
        return self._client

    def _failed(self, error: httpx2.TransportError) -> AskError:
        way = "" if self._proxy is None else f" through the proxy {self._proxy.place} ({self._proxy.variable})"
        told = shown(str(error) or type(error).__name__, self.mask)
        if _is_distrust(error):
            return AskError(
                f"The server's certificate is not trusted{way} ({told}). If it is your company's own, name its file: "
                "export SSL_CERT_FILE=FILE.pem.",
                fatal=True,
            )
        # What never left cannot have been billed.
        return AskError(f"The connection failed{way} ({told}).", retry=True, doubtful=not isinstance(error, UNSENT))


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=True, allow_nan=False).encode()


async def _received(response: httpx2.Response, mask: Mask) -> bytes:
    """The body, decompressed, as far as it is no longer than what an answer may be."""
    parts, size = [], 0
    async for part in response.aiter_raw():
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise _too_long()
    content = b"".join(parts)
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return content
    if encoding not in ("gzip", "x-gzip", "deflate"):
        told = f"The server encodes its answers ({shown(encoding, mask)!r}), which was not asked for."
        raise AskError(told, doubtful=True)
    try:
        decoder = zlib.decompressobj(_GZIP_TOO)
        content = decoder.decompress(content, MOST_BYTES)
    except zlib.error as error:
        raise AskError(f"The server's answer cannot be read ({error}).", retry=True, doubtful=True) from None
    if decoder.unconsumed_tail:
        raise _too_long()
    if not decoder.eof:
        raise AskError("The server's answer ends early.", retry=True, doubtful=True)
    return content


def _is_distrust(error: BaseException | None) -> bool:
    for _ in range(10):
        if error is None or isinstance(error, ssl.SSLCertVerificationError):
            break
        error = error.__cause__ or error.__context__
    return isinstance(error, ssl.SSLCertVerificationError)


def _too_long() -> AskError:
    return AskError(f"The server's answer has more than {MOST_BYTES // 2**20} MiB: it is no verdict.", doubtful=True)
