"""Futures of what becomes of other futures."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def when_all(parts: Sequence[Future[S]], combine: Callable[[list[S]], T]) -> Future[T]:
    """The future of what `combine` makes of all results, in their order; cancelling it cancels the parts.

    Of no parts, it is done at once.
    """
    whole: Future[T] = Future()
    lock, ended = threading.Lock(), 0

    def count(_: Future[S]) -> None:
        nonlocal ended
        with lock:
            ended += 1
            is_last = ended == len(parts)
        if is_last:
            finish()

    def finish() -> None:
        if not whole.set_running_or_notify_cancel():
            return
        try:
            whole.set_result(combine([part.result() for part in parts]))
        except BaseException as error:  # whoever waits for the result hears of it
            whole.set_exception(error)

    def stop(future: Future[T]) -> None:
        if future.cancelled():
            for part in parts:
                part.cancel()

    whole.add_done_callback(stop)
    for part in parts:
        part.add_done_callback(count)
    if not parts:
        finish()
    return whole
