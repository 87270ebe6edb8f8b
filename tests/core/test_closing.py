"""A component whose `close` fails takes neither the others nor what was done along."""

from __future__ import annotations

import logging

import pytest

from gymnast_core.closing import close_all, closing
from gymnast_core.config import ComponentConfig
from gymnast_judging import scoring


class Part:
    def __init__(self, fails: bool = False) -> None:
        self.fails, self.closed = fails, False

    def attach(self, parts: object) -> None:
        pass

    def close(self) -> None:
        self.closed = True
        if self.fails:
            raise RuntimeError("boom in close")


def test_all_are_closed_and_the_one_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    parts = [Part(), Part(fails=True), Part()]
    with caplog.at_level(logging.WARNING):
        close_all(parts)
    assert all(part.closed for part in parts)
    assert [record.getMessage() for record in caplog.records] == [
        "Part could not be closed: RuntimeError: boom in close"
    ]


def test_the_error_inside_stays_the_one_that_is_told() -> None:
    part = Part(fails=True)
    with pytest.raises(ValueError, match="the real one"), closing(part):
        raise ValueError("the real one")
    assert part.closed


def test_a_judge_that_cannot_be_closed_has_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part(fails=True)
    monkeypatch.setattr(scoring, "registries", lambda: Registries(part))
    with scoring.built(ComponentConfig("part"), "reward_model") as judge:
        assert judge is part  # type: ignore[comparison-overlap]
    assert part.closed


class Registries:
    def __init__(self, part: Part) -> None:
        self.reward_models, self._part = self, part

    def build(self, name: str, args: object, *, key: str) -> Part:
        return self._part
