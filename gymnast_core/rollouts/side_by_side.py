"""Batches that a CPU's cores work on side by side.

Networks of the size that a CPU trains do not keep several cores busy within one operation: PyTorch's threads wait for
each other thousands of times a second. Batches that know nothing of each other need not wait.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Semaphore
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopped(Exception):
    """Work that is no longer wanted ended itself."""


def side_by_side(
    work: Callable[[Item, Event], Result], items: Sequence[Item], threads: int
) -> Generator[Result, None, None]:
    """`work(item, stop)` of each item, in order, `threads` at a time with PyTorch's threads shared out among them.

    `stop` is set when nobody waits for more: after an error, or when the iterator is closed (`contextlib.closing`);
    work that looks at it ends early, with `Stopped`. Closing waits for that. The number of PyTorch's threads stays as
    it is everywhere else.
    """
    stop = Event()
    if threads < 2 or len(items) < 2:
        for item in items:
            yield work(item, stop)
        return
    threads = min(threads, len(items))
    own = torch.get_num_threads()
    # PyTorch's number is each thread's own, but the last one set is where new threads begin: judges' among them.
    begun, go = Semaphore(0), Event()

    def begin() -> None:
        torch.get_num_threads()  # without it, the first operation would take the number that is set by then
        torch.set_num_threads(max(own // threads, 1))
        begun.release()
        go.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="side-by-side", initializer=begin)
    try:
        waiting = [pool.submit(work, item, stop) for item in items]
        for _ in range(threads):
            begun.acquire()
        torch.set_num_threads(own)
        go.set()
        for one in waiting:
            yield one.result()
    finally:
        stop.set()
        go.set()
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(own)
