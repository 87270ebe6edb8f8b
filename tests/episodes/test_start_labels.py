"""What a recording keeps of the simulator behind an episode."""

from __future__ import annotations

import pytest

from gymnast_core.reading import as_object
from gymnast_core.types import EnvironmentStart
from gymnast_episodes.labels import Labels, columns, read_labels


@pytest.mark.parametrize("instruction", [None, "open the door"])
def test_what_the_environment_judges_by_is_kept(instruction: str | None) -> None:
    start = EnvironmentStart("a/World-v0", 7, {"light": 0.5}, {"size": 32}, None, instruction)
    record = Labels(start=start).to_record()
    assert ("instruction" in record["start"]) == (instruction is not None)
    [row] = columns([record])
    assert read_labels(as_object(row, "a table")).start == start
