"""Tasks to train on, some of them edited."""

from __future__ import annotations

from typing import Any

import pytest

from gymnast_core.errors import ConfigError
from gymnast_core.plugins.compose import registries
from gymnast_core.testing import check_dataset

TABLETOP = {"name": "tabletop", "args": {"count": 40, "image_size": 32}}


def build(**args: Any) -> Any:
    return registries().datasets.build("edited-tasks", {"dataset": TABLETOP, **args})


def test_a_share_of_the_tasks_is_edited_and_the_others_are_untouched() -> None:
    plain = registries().datasets.build("tabletop", TABLETOP["args"]).tasks()
    tasks, again, other = build(share=0.5).tasks(), build(share=0.5).tasks(), build(share=0.5, seed=1).tasks()
    edited = [bool((tasks[i].frames_TVHWC != plain[i].frames_TVHWC).any()) for i in range(40)]
    assert 10 < sum(edited) < 30
    for i in range(40):
        assert (tasks[i].id, tasks[i].instruction) == (plain[i].id, plain[i].instruction)
        assert (tasks[i].frames_TVHWC == again[i].frames_TVHWC).all()
    assert any((tasks[i].frames_TVHWC != other[i].frames_TVHWC).any() for i in range(40))
    assert not any((build(share=0.0).tasks()[i].frames_TVHWC != plain[i].frames_TVHWC).any() for i in range(5))


def test_it_keeps_the_contract() -> None:
    assert check_dataset(build())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"share": 1.5}, r"share is 1.5"),
        ({"edits": {"nonsense": {}}}, "mean nothing new"),
        ({"edits": {"a": {"edit": "blur"}}}, "No edit 'blur'"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**args)
