"""Five cells of which one crashes and one is too dear, in a bench that is killed: five honest rows in the end."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from bench_parts import alive, install, start, wait_until
from pyarrow import parquet

MATRIX = """\
kind: bench
base: line.yaml
axes:
  rate: {slow: [], fast: [optimizer.args.learning_rate=0.5]}
  start: {even: [], leaning: [policy.args.lean=1.0]}
exclude:
  - {rate: slow, start: even}
  - {rate: fast, start: even, seed: 2}
adjust:
  - {when: {rate: slow, start: leaning, seed: 1}, overrides: [world_model.args.die_with=SIGSEGV]}
  - {when: {rate: fast, start: even, seed: 1}, overrides: [reward_model.args.dollars=0.25, loop.iterations=500]}
  - {when: {rate: fast, start: leaning, seed: 1}, overrides: [world_model.args.step_seconds=0.1]}
seeds: [1, 2]
jobs: 2
threads: 1
budget: {dollars: 5.0}
output: out
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], list[str]]:
    """A bench that was killed after its first cells, and resumed: its folder, and the cells that had ended before."""
    folder = tmp_path_factory.mktemp("bench")
    environment = install(folder)
    (folder / "matrix.yaml").write_text(MATRIX)
    out = folder / "out"
    process = start(environment, folder, "matrix.yaml")
    begun = list[Path]()

    def some_ended_and_one_runs() -> bool:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        ended = {path.parent for path in out.glob("cells/*/result.json")}
        begun[:] = [path.parents[1] for path in out.glob("cells/*/run/config.yaml") if path.parents[1] not in ended]
        return len(ended) >= 2 and bool(begun)

    wait_until(some_ended_and_one_runs)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not alive(f"{out}/cells"), 20)  # supervisors and cells go with the bench
    before = {path: path.read_bytes() for path in out.glob("cells/*/result.json")}
    assert 2 <= len(before) < 5
    process = start(environment, folder, "--resume", "out")
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 1, said  # one of the cells crashes
    assert "1 of 5 cells failed; to try them again: gymnast bench --resume" in said
    assert {path: path.read_bytes() for path in before} == before  # what had ended was not run again
    (folder / "printed.txt").write_text(printed)
    return folder, environment, [path.parent.name for path in before]


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "out/rows.jsonl").read_text().splitlines()]


def test_every_cell_has_a_row_that_says_how_it_ended(finished: tuple[Path, dict[str, str], list[str]]) -> None:
    found = {(*row["labels"].values(), row["seed"]): row for row in rows(finished[0])}
    assert len(found) == 5
    crashed, dear = found.pop(("slow", "leaning", 1)), found.pop(("fast", "even", 1))
    assert crashed["status"] == "killed" and crashed["exit_code"] == -signal.SIGSEGV
    assert "SIGSEGV" in crashed["reason"] and crashed["after"]["rate"] is None
    assert crashed["before"]["rate"] is not None  # what it had found stays
    assert dear["status"] == "over budget" and "budget.dollars=5" in dear["reason"]
    assert dear["dollars"] > 5 and 0 < dear["iterations"] < 500 and dear["difference"] is None
    for row in found.values():
        assert (row["status"], row["reason"], row["exit_code"]) == ("done", "", 0)
        assert row["iterations"] == 2 and row["rollouts"] == 24 and row["frames"] == 96 and row["dollars"] == 0
        assert row["difference"] == pytest.approx(row["after"]["rate"] - row["before"]["rate"])
        assert len(row["imagined_success"]) == 2 and row["seconds"] > 0 and row["peak_memory_bytes"] > 1e7


def test_the_killed_cell_went_on_where_it_was(finished: tuple[Path, dict[str, str], list[str]]) -> None:
    folder, _, before = finished
    again = [row for row in rows(folder) if row["attempts"] > 1]
    assert again and all(row["cell"] not in before for row in again)


def test_parquet_holds_the_same_rows(finished: tuple[Path, dict[str, str], list[str]]) -> None:
    table = parquet.read_table(finished[0] / "out/rows.parquet").to_pylist()
    assert [(r["rate"], r["start"], r["seed"], r["status"], r["after_rate"]) for r in table] == [
        (*r["labels"].values(), r["seed"], r["status"], r["after"]["rate"]) for r in rows(finished[0])
    ]


def test_the_command_of_a_row_repeats_its_cell(finished: tuple[Path, dict[str, str], list[str]]) -> None:
    folder = finished[0]
    row = next(row for row in rows(folder) if row["labels"] == {"rate": "fast", "start": "leaning"})
    config = (folder / "out/cells" / row["cell"] / "run/config.yaml").read_text()
    assert row["command"].startswith("OMP_NUM_THREADS=1 gymnast train ")
    assert f"seed={row['seed']} " in row["command"] and f"seed: {row['seed']}\n" in config
    assert "optimizer.args.learning_rate=0.5 policy.args.lean=1.0" in row["command"] and "lean: 1.0" in config


def test_the_summary_pools_the_seeds(finished: tuple[Path, dict[str, str], list[str]]) -> None:
    summary = json.loads((finished[0] / "out/summary.json").read_text())
    assert summary["statuses"] == {"done": 3, "killed": 1, "over budget": 1}
    pooled = next(r for r in summary["results"] if r["cell"] == {"rate": "fast", "start": "leaning"})
    rates = [r["after"]["rate"] for r in rows(finished[0]) if r["labels"] == pooled["cell"]]
    assert pooled["seeds"] == "2 of 2" and pooled["success"] == pytest.approx(sum(rates) / 2)
    assert pooled["standard_error"] == pytest.approx(abs(rates[0] - rates[1]) / 2)
    alone = next(r for r in summary["results"] if r["cell"] == {"rate": "slow", "start": "leaning"})
    assert alone["seeds"] == "1 of 2" and alone["standard_error"] is None and alone["interval"] is not None
    assert set(summary["problems"]) == {"slow, leaning, seed 1", "fast, even, seed 1"}


def test_retry_runs_what_failed_and_nothing_else(finished: tuple[Path, dict[str, str], list[str]]) -> None:
    folder, environment, _ = finished
    before = {row["cell"]: row for row in rows(folder)}
    process = start(environment, folder, "--resume", "out", "retry=true", "budget.dollars=9")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1, said
    after = {row["cell"]: row for row in rows(folder)}
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {name for name in before if before[name]["status"] != "done"}
    for name in changed:
        assert after[name]["attempts"] == before[name]["attempts"] + 1
        assert after[name]["status"] == before[name]["status"]
        assert after[name]["iterations"] >= before[name]["iterations"]
    # A new budget counts what was spent before.
    assert all(row["dollars"] > 9 for row in after.values() if row["status"] == "over budget")
