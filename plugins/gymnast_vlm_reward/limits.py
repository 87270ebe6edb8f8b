"""Rate limits as token buckets in the shared file: all processes together stay below them."""

from __future__ import annotations

import time

from gymnast_vlm_reward.store import Store

BURST = 1 / 20
"""Size of a bucket as a share of its minute: 3 seconds' worth may leave at once."""


class RateLimit:
    """At most `per_minute` units (requests, tokens) a minute under one name, plus a burst of `BURST` of it."""

    def __init__(self, store: Store, name: str, per_minute: float) -> None:
        self._store, self._name = store, name
        self._rate = per_minute / 60
        self._capacity = max(1.0, per_minute * BURST)

    def take(self, amount: float) -> float:
        """Take `amount` now and return the seconds to wait before using it.

        The level may fall below zero: who comes later waits longer, so that everybody is served in order and a request
        larger than the bucket is served at all.
        """
        return self._change(-amount)

    def give_back(self, amount: float) -> None:
        """Return what was taken and not used (a negative `amount` takes what was used beyond)."""
        self._change(amount)

    def _change(self, amount: float) -> float:
        # All processes of a machine share this clock, and nobody sets it; after a restart it is behind `updated`.
        now = time.monotonic()
        with self._store.transaction() as connection:
            row = connection.execute("SELECT level, updated FROM buckets WHERE name = ?", (self._name,)).fetchone()
            level, updated = row or (self._capacity, now)
            refilled = min(self._capacity, level + max(0.0, now - updated) * self._rate)
            level = min(self._capacity, refilled + amount)
            connection.execute("INSERT OR REPLACE INTO buckets VALUES (?, ?, ?)", (self._name, level, now))
        return max(0.0, -level / self._rate)
