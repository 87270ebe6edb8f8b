"""Which failed requests a server may bill all the same: what never left, or was refused at once, cannot have been."""

from __future__ import annotations

import httpx2

MAYBE_BILLED = (408, 504, 524)
"""Statuses by which somebody in between may say that the answer, which is billed, came too late."""
UNSENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
"""Errors of requests that never left."""
