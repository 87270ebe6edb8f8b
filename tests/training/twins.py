"""Two processes as two threads: what they tell each other goes through the same calls, in the same order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gymnast_core.processes import Processes


class Meeting:
    """Where the twins exchange things."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.barrier = threading.Barrier(count, timeout=5)
        self.table: list[Any] = [None] * count


class Twin(Processes):
    """One of them."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        super().__init__()
        self._meeting, self._rank = meeting, rank

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def count(self) -> int:
        return self._meeting.count

    def gather(self, value: Any) -> list[Any]:
        self._meeting.table[self._rank] = value
        self._meeting.barrier.wait()
        found = list(self._meeting.table)
        self._meeting.barrier.wait()
        return found

    def sum(self, values: Tensor) -> Tensor:
        return torch.stack(self.gather(values)).sum(0)

    def wait(self) -> None:
        self._meeting.barrier.wait()

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        every = self.gather([None if p.grad is None else p.grad.clone() for p in parameters])
        for index, parameter in enumerate(parameters):
            known = [theirs[index] for theirs in every if theirs[index] is not None]
            parameter.grad = torch.stack(known).sum(0) if known else None


def together(count: int, work: Callable[[Processes], Any]) -> list[Any]:
    """What `work` returns in each of `count` processes, by rank; the first error of any."""
    meeting = Meeting(count)
    results: list[Any] = [None] * count
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(Twin(meeting, rank))
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:
            errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
