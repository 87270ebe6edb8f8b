"""The future of several futures."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from itertools import permutations

import pytest

from gymnast_core.futures import when_all


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_results_are_combined_in_their_own_order(order: tuple[int, ...]) -> None:
    parts: list[Future[int]] = [Future() for _ in range(3)]
    whole = when_all(parts, lambda results: [10 * result for result in results])
    for place in order:
        assert not whole.done()
        parts[place].set_result(place)
    assert whole.result(timeout=1) == [0, 10, 20]


def test_an_error_of_one_is_that_of_the_whole_once_all_have_ended() -> None:
    parts: list[Future[int]] = [Future(), Future()]
    whole = when_all(parts, sum)
    parts[0].set_exception(ValueError("no"))
    assert not whole.done()
    parts[1].set_result(1)
    with pytest.raises(ValueError, match="no"):
        whole.result(timeout=1)


def test_cancelling_stops_the_parts_and_what_they_still_say_is_dropped() -> None:
    waiting, running = Future[int](), Future[int]()
    assert running.set_running_or_notify_cancel()
    whole = when_all([waiting, running], sum)
    assert whole.cancel() and waiting.cancelled() and not running.cancelled()
    running.set_result(1)  # cannot be stopped any more, and nobody is told
    with pytest.raises(CancelledError):
        whole.result(timeout=1)


def test_of_no_parts_it_is_done_at_once() -> None:
    assert when_all(list[Future[int]](), sum).result(timeout=1) == 0
