"""Environments kept for reuse: making one is often a hundred times slower than resetting it."""

from __future__ import annotations

import json
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

from gymnast_core.errors import DataError
from gymnast_environment.hosting import Hosting
from gymnast_environment.hosts import Host, InProcess, InWorker, Kind

LONGEST_WAIT_S = 900.0
"""Seconds that one thread waits for environments which another one uses."""


class Pool:
    """Environments of whatever kinds, for any number of users; idle ones, the longest idle first, make room.

    No user has more than `limit` at once, and no more than `limit` are alive while only one of them has some.
    """

    def __init__(self, make: Callable[[Kind], Host], limit: int | None) -> None:
        self._make, self._limit = make, limit
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        self._idle: list[Host] = []
        """The longest idle first."""
        self._lent: dict[Host, tuple[int, int]] = {}
        """With the user (its `id`) and the thread that have it."""
        # Not under the lock: environments come back when their episodes are garbage, at any moment, in any thread.
        self._back: deque[tuple[Host, bool]] = deque()
        self._changed = threading.Condition(threading.RLock())
        self.closed = False

    def lend(self, kinds: Sequence[Kind], user: object) -> list[Host]:
        """One host each, with an environment of that kind or still without any (`about` is missing).

        Raises `DataError` if there is no room for so many.
        """
        with self._changed:
            self.closed = False
            self._users.add(user)
            self._wait_for_room(len(kinds), id(user))
            found: list[Host | None] = [self._take(kind) for kind in kinds]
            for place, kind in enumerate(kinds):
                if found[place] is None:
                    found[place] = self._make(kind)
            hosts = [host for host in found if host is not None]
            for host in hosts:
                self._lent[host] = (id(user), threading.get_ident())
            surplus = len(self._lent) + len(self._idle) - (self._limit or 2**31)
            closing, self._idle = self._idle[: max(surplus, 0)], self._idle[max(surplus, 0) :]
        _close(closing)
        return hosts

    def give_back(self, host: Host, usable: bool = True) -> None:
        """Take a host back, whose environment may be of no use any more."""
        self._back.append((host, usable))
        if self.closed:
            self.collect()

    def collect(self) -> None:
        """What came back becomes idle, or is closed."""
        closing = []
        with self._changed:
            while self._back:
                host, usable = self._back.popleft()
                self._lent.pop(host, None)
                if usable and not self.closed:
                    self._idle.append(host)
                else:
                    closing.append(host)
            self._changed.notify_all()
        _close(closing)

    def close(self, user: object) -> None:
        """Close what is idle now, and what is still lent when it comes back; not while there are other users."""
        with self._changed:
            self._users.discard(user)
            if self._users:
                return
            self.closed = True
        self.collect()
        with self._changed:
            closing, self._idle = self._idle, []
        _close(closing)

    def _take(self, kind: Kind) -> Host | None:
        for place in range(len(self._idle) - 1, -1, -1):
            if self._idle[place].kind.key == kind.key:
                return self._idle.pop(place)
        return None

    def _wait_for_room(self, count: int, user: int) -> None:
        waited = 0.0
        while True:
            self.collect()
            threads = [thread for holder, thread in self._lent.values() if holder == user]
            if self._limit is None or len(threads) + count <= self._limit:
                return
            mine = threads.count(threading.get_ident())
            if mine + count > self._limit or waited >= LONGEST_WAIT_S:
                raise DataError(
                    f"{count} environments are wanted at once and {len(threads)} are in use; "
                    f"hosting.max_environments is {self._limit}. Raise it, or ask for fewer episodes at a time."
                )
            self._changed.wait(0.1)
            waited += 0.1


_workers: weakref.WeakValueDictionary[str, Pool] = weakref.WeakValueDictionary()
_finding = threading.Lock()


def pool_here() -> Pool:
    """Environments in this process, as many as anybody wants."""
    return Pool(InProcess, None)


def pool_of_workers(hosting: Hosting) -> Pool:
    """The environments with a process of their own: one pool for all who host them alike.

    So a run's tasks, world and judge reuse each other's, and `max_environments` counts once.
    """
    key = json.dumps(asdict(hosting), sort_keys=True)
    with _finding:
        pool = _workers.get(key)
        if pool is None:
            pool = _workers[key] = Pool(partial(InWorker, hosting=hosting), hosting.max_environments)
    return pool


def _close(hosts: Sequence[Host]) -> None:
    """All at once: each may take a while."""
    for host in hosts:
        host.hang_up()
    for host in hosts:
        host.close()
