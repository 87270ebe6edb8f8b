"""Costs that may be unknown, and what a run keeps of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gymnast_core.errors import DataError
from gymnast_core.money import as_metric, in_dollars, total_usd
from gymnast_core.reading import parse_json
from gymnast_core.runs.spending import FILE, Payment, Spending, note, read_payments, spent_usd


def test_what_is_added_to_an_unknown_cost_is_unknown() -> None:
    assert total_usd([]) == 0.0 and total_usd([0.5, 0.25]) == 0.75
    assert total_usd([0.5, None, 0.25]) is None
    assert as_metric(0.5) == 0.5 and math.isnan(as_metric(None))


@pytest.mark.parametrize(
    ("usd", "words"),
    [(0.0, "$0.00"), (1.234, "$1.23"), (0.01, "$0.01"), (0.00123, "$0.0012"), (None, "an unknown amount")],
)
def test_costs_in_words(usd: float | None, words: str) -> None:
    assert in_dollars(usd) == words


def test_payments_are_only_added_to(tmp_path: Path) -> None:
    assert spent_usd(tmp_path) == 0.0
    note(tmp_path, Payment("training", 0, 0.5))
    note(tmp_path, Payment("training", 1, 0.0))  # nothing was paid
    note(tmp_path, Payment("training", 0, 0.25))  # the first iteration once more
    assert [payment.step for payment in read_payments(tmp_path)] == [0, 0] and spent_usd(tmp_path) == 0.75
    note(tmp_path, Payment("audit", 1, None))
    assert spent_usd(tmp_path) is None


def test_a_payment_that_was_not_written_to_its_end_is_passed_over(tmp_path: Path) -> None:
    note(tmp_path, Payment("training", 0, 0.5))
    with (tmp_path / FILE).open("a") as file:
        file.write('{"what": "trai')
    spending = Spending(tmp_path)
    assert spending.usd() == 0.5
    # The next one is not read with it.
    note(tmp_path, Payment("training", 0, 0.25))
    assert spending.usd() == 0.75 == spent_usd(tmp_path)


def test_each_payment_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of many iterations asks after each of them."""
    parsed: list[bytes] = []

    def counting(line: bytes, place: str) -> object:
        parsed.append(line)
        return parse_json(line, place)

    monkeypatch.setattr("gymnast_core.runs.spending.parse_json", counting)
    spending = Spending(tmp_path)
    for number in range(1, 20):
        note(tmp_path, Payment("training", number, 0.5))
        assert spending.usd() == 0.5 * number and len(parsed) == number


def test_a_damaged_payment_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"what": "training", "step": 0, "usd": "much"}\n')
    with pytest.raises(DataError, match=r"spending.jsonl, line 1: .*usd.* a number or null.* Delete that line"):
        spent_usd(tmp_path)
