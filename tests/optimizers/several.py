"""Processes that are threads of one: what an optimizer asks of all of them, without a network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from gymnast_core.processes import Processes

T = TypeVar("T")


class _Shared:
    def __init__(self, count: int) -> None:
        self.count, self.barrier = count, threading.Barrier(count, timeout=20)
        self.values: list[Any] = [None] * count


class Threads(Processes):
    """One of several threads that tell each other numbers."""

    def __init__(self, shared: _Shared, rank: int) -> None:
        super().__init__()
        self._shared, self._rank = shared, rank

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def count(self) -> int:
        return self._shared.count

    def gather(self, value: Any) -> list[Any]:
        self._shared.values[self._rank] = value
        self._shared.barrier.wait()
        found = list(self._shared.values)
        self._shared.barrier.wait()
        return found


def in_threads(jobs: Sequence[Callable[[Processes], T]]) -> list[T]:
    """What each job finds, all of them at once and in touch with each other."""
    shared = _Shared(len(jobs))
    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [pool.submit(job, Threads(shared, rank)) for rank, job in enumerate(jobs)]
        return [job.result(timeout=30) for job in running]
