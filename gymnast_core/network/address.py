"""Where a server is asked: base URLs, proxies and certificates, checked when whoever asks is built."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlsplit

from gymnast_core.errors import ConfigError
from gymnast_core.network.secrecy import secrets_in_address

QUERY = ("api-version",)
"""Parameters that a base URL may have: Azure's. Whatever else stands in a query may be a secret."""
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?")
_PROXIES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True)
class Address:
    """A checked base URL: nothing in it is secret."""

    base: str
    """Scheme, host, port and path, without a slash at the end."""
    query: str
    host: str
    scheme: str

    def url(self, path: str) -> str:
        """Of an endpoint, e.g. "/chat/completions"."""
        return f"{self.base}{path}" + (f"?{self.query}" if self.query else "")

    @property
    def is_azure(self) -> bool:
        """Whether keys go into the header `api-key`, as services with an `api-version` want it."""
        return bool(self.query)

    @property
    def is_local(self) -> bool:
        """Whether this machine is asked, to which no proxy leads."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_address(
    text: str,
    key: str,
    endpoint: str = "",
    *,
    key_option: str,
    schemes: Sequence[str] = ("http", "https"),
    example: str = "http://localhost:8000/v1",
) -> Address:
    """The address that the config's `key` holds, without the `endpoint` that is added to it.

    `key_option` is the config's key that names the environment variable of the server's key, and `schemes` are those
    that can be asked. Raises `ConfigError`, which shows nothing that may be a secret.
    """
    instead = f"put the key into an environment variable and name that in {key_option}."
    such = f"For example {example}."
    if any(ord(letter) <= 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in text):
        raise ConfigError(f"{key} holds spaces, line breaks or control characters. Give the address alone.")
    parts, host, port = _split(text)
    # Even where it is not read as such: a password with a slash in it ends the host for the reader, not for its owner.
    if "@" in text:
        raise ConfigError(
            f"{key} holds a user or password, which would be written to the run folder. Leave it out, {instead}"
        )
    if parts.scheme not in schemes or not host:
        beginnings = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ConfigError(f"{key} must begin with {beginnings} and name a host. {such}")
    if not _HOST.fullmatch(host):
        raise ConfigError(f"{key} names no host that can be. {such}")
    if parts.fragment:
        raise ConfigError(f"{key} holds a fragment (#…), which no server is sent. {such}")
    try:
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    except ValueError:
        query = [("?", "")]
    if any(name not in QUERY for name, _ in query):
        raise ConfigError(
            f"{key} holds a query (?…) that may be a secret; only {', '.join(QUERY)} can stand there. Leave it out, "
            f"{instead}"
        )
    path = parts.path.rstrip("/")
    if endpoint and path.endswith(endpoint):
        raise ConfigError(f"{key} ends in {endpoint}, which is added to it. Leave that out.")
    address = f"[{host}]" if ":" in host else host
    base = f"{parts.scheme}://{address}{'' if port is None else f':{port}'}{path}"
    return Address(base, parts.query, host, parts.scheme)


def _split(text: str) -> tuple[SplitResult, str | None, int | None]:
    """The parts of a URL, its host and its port; nothing of one that cannot be read."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return urlsplit(""), None, None
    return (parts, host, port) if port != 0 else (urlsplit(""), None, None)


def refuse_secrets(text: str, key: str, instead: str) -> None:
    """Raises `ConfigError` if an address in a form of its own, which others read, holds a login, or a query that may be
    one. `instead` says where a login belongs."""
    if "@" in text or "?" in text:
        what = "a user or password" if "@" in text else "a query (?…) that may be a secret"
        raise ConfigError(f"{key} holds {what}, which would be written to the run folder. Leave it out. {instead}")


@dataclass(frozen=True)
class Proxy:
    """What stands between, as the environment says it."""

    url: str
    """With user and password, where there are some."""
    place: str
    """Host and port, to be shown."""
    variable: str

    @property
    def secrets(self) -> list[str]:
        return secrets_in_address(self.url)


def find_proxy(address: Address) -> Proxy | None:
    """The proxy for an address: of HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, but for this machine and NO_PROXY.

    Raises `ConfigError` for one that cannot be used.
    """
    known = urllib.request.getproxies()
    name = address.scheme if known.get(address.scheme) else "all"
    url = known.get(name)
    if not url or address.is_local or urllib.request.proxy_bypass(address.host):
        return None
    variable = f"{name.upper()}_PROXY"
    parts, host, port = _split(url if "://" in url else f"http://{url}")
    if not host or parts.scheme not in _PROXIES:
        raise ConfigError(
            f"The environment variable {variable} (or {variable.lower()}) names no proxy that can be used: it must "
            f"look like http://HOST:PORT. Set it anew, or except the server: NO_PROXY={address.host}."
        )
    return Proxy(parts.geturl(), host if port is None else f"{host}:{port}", variable)


def certificates(address: Address) -> ssl.SSLContext | bool:
    """Which certificates are trusted: those of SSL_CERT_FILE and SSL_CERT_DIR, or the usual ones. `ConfigError`."""
    if address.scheme != "https":
        return False
    file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    if file is None and folder is None:
        return _usual()
    try:
        return ssl.create_default_context(cafile=file, capath=folder)
    except (OSError, ssl.SSLError) as error:
        names = " and ".join(name for name, value in (("SSL_CERT_FILE", file), ("SSL_CERT_DIR", folder)) if value)
        raise ConfigError(
            f"The certificates that {names} names cannot be read: {type(error).__name__}: {error}. It must be a PEM "
            "file (folder); unset it to trust the usual certificates."
        ) from error


def _usual() -> ssl.SSLContext:
    try:
        import certifi  # the client library's own, where it brings one
    except ImportError:
        return ssl.create_default_context()
    return ssl.create_default_context(cafile=certifi.where())
