"""A short run of the fuzzers; `benchmarks/fuzz.py` makes long ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import fuzz_configs
import fuzz_runs


def test_overrides_keep_what_was_typed_or_are_one_error() -> None:
    tally: Counter[str] = Counter()
    assert fuzz_configs.overrides(100, 0, tally) == []
    assert tally["read"] > 5 and tally["refused"] > 30


def test_config_files_are_read_with_the_same_meaning_or_are_one_error(tmp_path: Path) -> None:
    tally: Counter[str] = Counter()
    assert fuzz_configs.files(60, 0, tally, tmp_path) == []
    assert tally["read"] > 10 and tally["refused"] > 10


def test_damaged_run_folders_go_on_to_the_same_weights_or_are_one_error(tmp_path: Path) -> None:
    tally: Counter[str] = Counter()
    assert fuzz_runs.folders(8, 0, tally, tmp_path) == []
    assert tally["read"] + tally["refused"] == 8


def test_damaged_snapshots_are_passed_over(tmp_path: Path) -> None:
    tally: Counter[str] = Counter()
    assert fuzz_runs.snapshots(150, 0, tally, tmp_path) == []
    assert tally["the one before"] > 130
