"""Numbers combine as what they are: however they are split up, the whole is the same."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gymnast_core.processes import Processes
from gymnast_core.training.tally import Tally
from gymnast_core.types import Metric

HOW = ("mean", "sum", "max", "min")
VALUES = st.floats(-1e3, 1e3, allow_nan=False)
WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 3.0, 100.0])
PARTS = st.lists(st.tuples(VALUES, WEIGHTS), min_size=1, max_size=12)


class Several(Processes):
    """Processes that have told each other already: the metrics of all are known."""

    def __init__(self, theirs: list[dict[str, Metric]]) -> None:
        super().__init__()
        self.theirs = theirs

    @property
    def count(self) -> int:
        return len(self.theirs)

    def gather(self, value: Any) -> Any:
        return self.theirs


def filled(parts: list[tuple[float, float]]) -> Tally:
    tally = Tally()
    for value, weight in parts:
        tally.add({how: Metric(value, weight, how) for how in HOW})  # type: ignore[arg-type]
    return tally


def known(parts: list[tuple[float, float]]) -> dict[str, float]:
    values, weight = [value for value, _ in parts], sum(weight for _, weight in parts)
    numbers = {"sum": math.fsum(values)}
    if weight > 0:
        counted = [value for value, share in parts if share > 0]
        numbers |= {"max": max(counted), "min": min(counted)}
        numbers["mean"] = math.fsum(value * share for value, share in parts) / weight
    return numbers


def close(found: dict[str, float], wanted: dict[str, float]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-6), name


@pytest.mark.parametrize("how", ["max", "min", "sum", "mean"])
def test_what_is_no_number_stays_none_wherever_it_stands(how: Any) -> None:
    for values in itertools.permutations([math.nan, 1.0, 2.0]):
        tally = Tally()
        for value in values:
            tally.add({"x": Metric(value, combine=how)})
        assert math.isnan(tally.numbers()["x"])


@given(PARTS, st.lists(st.integers(0, 12), max_size=4))
def test_any_split_over_processes_gives_the_same(parts: list[tuple[float, float]], cuts: list[int]) -> None:
    close(filled(parts).numbers(), known(parts))
    places = [0, *sorted(min(cut, len(parts)) for cut in cuts), len(parts)]
    # The last process has nothing to tell, and others may not.
    shares = [*(parts[first:last] for first, last in itertools.pairwise(places)), []]
    close(Tally().numbers(Several([filled(share).combined() for share in shares])), known(parts))


@given(PARTS, st.integers(0, 12))
def test_what_was_combined_can_be_added_again(parts: list[tuple[float, float]], cut: int) -> None:
    whole = filled(parts[:cut])
    whole.add(filled(parts[cut:]).combined())
    close(whole.numbers(), known(parts))


@given(PARTS, st.randoms())
def test_the_order_does_not_matter(parts: list[tuple[float, float]], random: Any) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)
    close(filled(shuffled).numbers(), known(parts))


def test_what_weighs_nothing_may_hold_anything_and_is_left_out() -> None:
    tally = Tally()
    tally.add({"loss": Metric(float("nan"), 0.0), "ratio": Metric(7.0, 0.0)})
    assert tally.numbers() == {}
    tally.add({"loss": Metric(3.0, 2.0)})
    assert tally.numbers() == {"loss": 3.0}


def test_tensors_are_fetched_when_the_numbers_are_asked_for() -> None:
    tally = Tally()
    loss = torch.tensor(2.0, requires_grad=True)
    tally.add({"loss": Metric(loss * 2, torch.tensor(3)), "norm": Metric(torch.tensor([5.0]), combine="max")})
    tally.add({"loss": Metric(0.0, 1), "norm": Metric(6, combine="max")})
    tally.total(rollouts=4)
    tally.total(rollouts=8)
    assert tally.numbers() == {"loss": 3.0, "norm": 6.0, "rollouts": 12.0}
    assert tally.numbers(Processes()) == tally.numbers()
