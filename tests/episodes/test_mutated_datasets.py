"""Changed and damaged datasets are read with the same meaning, or are one error. `mutations.py` tries more of them."""

from __future__ import annotations

from collections import Counter

import mutations
import pytest


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return mutations.sound(tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize("group", mutations.KINDS)
@pytest.mark.parametrize(
    "kind", ["trials", "worldgym-episodes", "lerobot:v2.1", "lerobot:v3", "lerobot:images", "rlds"]
)
def test_nothing_wrong_in_silence_and_no_foreign_exception(sources, kind, group):
    tally: Counter[str] = Counter()
    assert mutations.faults(kind, sources[kind], group, 8, 0, tally) == []
    assert sum(tally.values()) > 0
