"""metrics.csv grows by a row a step and survives a kill at any byte."""

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gymnast_core.errors import DataError
from gymnast_core.runs.metrics import MetricsFile, read_metrics

ROWS = {step: {"loss": step / 3, "rollouts": 8.0} for step in range(1, 6)}


def written(path, steps, done=0):
    file = MetricsFile(path, done)
    for step in steps:
        file.append(step, ROWS[step])
    return path.read_bytes()


def test_a_row_is_appended_and_the_past_is_not_written_again(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path, 0)
    file.append(1, ROWS[1])
    inode = path.stat().st_ino
    for step in (2, 3, 4):
        file.append(step, ROWS[step])
    assert path.stat().st_ino == inode
    file.append(5, {**ROWS[5], "late": 1.5})
    with path.open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [float(row["loss"]) for row in rows] == [step / 3 for step in range(1, 6)]
    assert [row["late"] for row in rows] == ["", "", "", "", "1.5"]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 200), done=st.integers(0, 5))
def test_whatever_was_lost_of_the_end_a_resumed_file_is_the_whole_one(tmp_path_factory, cut, done):
    folder = tmp_path_factory.mktemp("cut")
    whole = written(folder / "whole.csv", range(1, 6))
    path = folder / "metrics.csv"
    path.write_bytes(whole[: len(whole) - min(cut, len(whole))])
    kept = [int(row["step"]) for row in read_metrics(path)]
    # A snapshot is newer than no row that it stands for.
    done = min(done, max(kept, default=0))
    assert written(path, range(done + 1, 6), done) == whole


@pytest.mark.parametrize(
    "content",
    [
        b"step,loss\n1,2,3\n",
        b"step,loss\n1\n",
        b"loss\n1\n",
        b"step,loss\nx,1\n",
        b'step,loss\n"1,2\n',
        b"step,loss\n\xff,1\n",
        b"step,loss\n1\x00,1\n",
    ],
)
def test_a_damaged_file_is_one_error_that_names_it(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"metrics\.csv"):
        MetricsFile(path, 3)
