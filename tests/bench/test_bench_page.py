"""What the page and the table over seeds call the numbers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from gymnast_bench.config import BenchConfig
from gymnast_bench.page import build_bench_page
from gymnast_bench.rows import Measured, Row, combine, write_rows
from gymnast_core.config import to_yaml
from gymnast_report.runs import run_row

SCORE = Measured(-3.5, -5.0, 12.0, 40, 0, "score", "progress")
ROW = Row(
    cell="a", labels={"optimizer": "grpo"}, seed=1, status="done", reason="", exit_code=0, before=SCORE, after=SCORE,
    difference=2.5, difference_low=1.0, difference_high=4.0, imagined_success=[],
    evaluations=[(0, -6.0, None, None), (2, -3.5, -5.0, 12.0)], iterations=2, seconds=1.0, attempts=1,
    peak_memory_bytes=0, rollouts=8, frames=64, dollars=0.0, command="gymnast train", imagined_reward=[(1, 0.5)],
)  # fmt: skip


def text_of(folder: Path, rows: list[Row]) -> str:
    config = BenchConfig(base="tabletop", axes={"optimizer": {"grpo": [], "rloo": ["optimizer=rloo"]}})
    (folder / "config.yaml").write_text(to_yaml(config))
    page = build_bench_page(folder, rows, config).read_text()
    return re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)


def test_other_rewards_are_named_after_their_judge(tmp_path: Path) -> None:
    rows = [ROW, replace(ROW, cell="b", seed=2, after=replace(SCORE, rate=8.5))]
    (found,) = combine(rows)
    assert found.mean == 2.5 and found.interval is not None and found.interval[1] > 70  # no bound of 1
    text = text_of(tmp_path, rows)
    assert "to 2.5" in text and "Best" not in text and "Mean reward by progress after" in text and "−3.5" in text
    listed = run_row(tmp_path, tmp_path.parent)
    assert listed.result in " ".join(text.split()) and listed.value == 2.5 and listed.facts.judge == "progress"
    shown = text[: text.index("Repeat this bench")]
    assert "uccess" not in shown and "%" not in re.sub("95( |&nbsp;)%", "", shown)


def test_what_different_judges_gave_is_not_compared(tmp_path: Path) -> None:
    success = replace(ROW, cell="b", labels={"optimizer": "rloo"}, after=Measured(0.5, 0.4, 0.6, 40, 0))
    text = text_of(tmp_path, [ROW, success])
    assert "Results by several judges" in text and "Best:" not in text
    assert "50.0 %" in text and "−3.5" in text and "mean reward by progress" in text


def test_the_best_of_a_few_seeds_is_held_to_students_t(tmp_path: Path) -> None:
    """Gains of 2.2, 3.2 and 4.2, chosen of two combinations: t of 2 degrees at 97.5 % is 6.205, a bound below zero,
    where a normal's quantiles would move the bound of 95 % (4.303) by 14 % only and leave it above."""

    def cells(label: str, gains: list[float]) -> list[Row]:
        return [
            replace(ROW, cell=f"{label}-{seed}", labels={"optimizer": label}, seed=seed, difference=gain)
            for seed, gain in enumerate(gains)
        ]

    rows = [*cells("grpo", [-0.1, 0.0, 0.1]), *cells("rloo", [2.2, 3.2, 4.2])]
    found = combine(rows)[1]
    assert found.gain_degrees == 2
    assert found.gain_interval == pytest.approx((3.2 - 4.3027 / 3**0.5, 3.2 + 4.3027 / 3**0.5), abs=1e-3)
    assert "No gain over the policy before training is shown; the largest: rloo" in text_of(tmp_path, rows)
    sure = [*cells("grpo", [-0.1, 0.0, 0.1]), *cells("rloo", [2.7, 3.7, 4.7])]  # 6.205 / √3 is 3.58
    assert "Best: rloo" in text_of(tmp_path, sure)
    assert combine([ROW])[0].gain_degrees is None  # of one seed, the interval is over episodes


def test_rows_say_what_was_measured(tmp_path: Path) -> None:
    write_rows(tmp_path, [ROW])
    assert json.loads((tmp_path / "rows.jsonl").read_text())["after"]["judge"] == "progress"
    (row,) = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert (row["after_rate"], row["after_kind"], row["after_judge"]) == (pytest.approx(-3.5), "score", "progress")
    assert row["imagined_reward"] == [{"iteration": 1, "reward": 0.5}] and row["imagined_success"] == []


def test_a_cell_whose_cost_is_not_known_says_so(tmp_path: Path) -> None:
    known = replace(ROW, cell="b", seed=2)
    rows = [ROW, replace(known, dollars=None)]
    write_rows(tmp_path, rows)
    assert [row["dollars"] for row in parquet.read_table(tmp_path / "rows.parquet").to_pylist()] == [0.0, None]
    others = text_of(tmp_path, [ROW, known]).count("unknown")
    assert text_of(tmp_path, rows).count("unknown") == others + 2  # the cell's, and what all cost
