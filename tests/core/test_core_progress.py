"""What a run shows of itself while it works, and says of what ran it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gymnast_core.runs.progress import Progress, spoken
from gymnast_core.runs.versions import versions


def test_versions_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert versions()["git_revision"] is None and versions()["git_dirty"] is None
    monkeypatch.setenv("PATH", "")
    assert versions()["git_revision"] is None


class TestProgressInALogFile:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [100.0]
        monkeypatch.setattr("gymnast_core.runs.progress.time.monotonic", lambda: now[0])
        return now

    def test_a_line_soon_and_then_one_a_minute(self, clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
        with Progress("Fitting", total=720) as progress:
            for step in range(1, 721):
                clock[0] += 0.25
                progress.update(step, {"loss": 0.12345, "unscored": 2})
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "Fitting 40/720  4.00 steps/s  left 2:50  loss 0.123  unscored 2"
        assert [line.split("/")[0] for line in lines] == ["Fitting 40", "Fitting 280", "Fitting 520", "Fitting 720"]
        assert lines[-1].startswith("Fitting 720/720  4.00 steps/s  left 0:00")

    def test_words_stand_for_counts(self, clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
        with Progress("Training", total=12, unit="iteration") as progress:
            for step in range(1, 13):
                clock[0] += 9
                progress.update(step, {"loss": 0.1}, f"iteration {step} of 12: 58 % of rollouts")
        lines = capsys.readouterr().err.splitlines()
        assert lines == [
            "iteration 2 of 12: 58 % of rollouts, 9 s each, about 1 min 30 s left",
            "iteration 9 of 12: 58 % of rollouts, 9 s each, about 27 s left",
            "iteration 12 of 12: 58 % of rollouts, 9 s each",
        ]

    def test_a_resumed_run_counts_only_its_own_steps(
        self, clock: list[float], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with Progress("Training", total=100, unit="iteration", start=90) as progress:
            clock[0] += 10
            progress.update(90, {})
            clock[0] += 60
            progress.update(91, {})
        first, second = capsys.readouterr().err.splitlines()
        assert first == "Training 90/100  left ?"
        assert second == "Training 91/100  70.0 s/iteration  left 10:30"

    def test_hours(self, clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
        with Progress("Training", total=101, unit="iteration") as progress:
            clock[0] += 100
            progress.update(1, {})
        assert capsys.readouterr().err == "Training 1/101  100.0 s/iteration  left 2:46:40\n"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.42, "0.4 s"), (9.1, "9 s"), (80, "1 min 20 s"), (59.7, "1 min 0 s"), (7500, "2 h 5 min")]
)
def test_durations_as_people_say_them(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


def test_a_terminal_gets_a_sentence_above_its_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("gymnast_core.runs.progress.SAID_SECONDS", 0.0)
    with Progress("Training", total=10) as progress:
        progress.update(1, {}, "iteration 1 of 10: [58 %] judged")
    assert "iteration 1 of 10: [58 %] judged, " in capsys.readouterr().err


def test_a_terminal_gets_a_live_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("Fitting", total=10, start=4) as progress:
        progress.update(7, {"loss": 0.5})
    shown = capsys.readouterr().err
    assert "Fitting" in shown and "7/10" in shown and "loss 0.5" in shown
