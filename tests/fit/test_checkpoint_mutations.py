"""Damaged checkpoints of world models and classifiers give one clear error, or what the undamaged ones give."""

from __future__ import annotations

import random

import checkpoint_mutations
import pytest


def test_a_hundred_mutations_give_an_error_or_the_same_result() -> None:
    assert checkpoint_mutations.failures(100, seed=2) == []


def test_every_free_key_says_why() -> None:
    assert all(len(reason) > 20 for reason in checkpoint_mutations.FREE.values())


@pytest.mark.parametrize("subject", checkpoint_mutations.SUBJECTS, ids=lambda subject: subject.name)
def test_undamaged_folders_give_the_same_result_twice(subject: checkpoint_mutations.Subject, tmp_path) -> None:  # type: ignore[no-untyped-def]
    subject.save(tmp_path / "folder")
    assert subject.result(tmp_path / "folder").equal(subject.result(tmp_path / "folder"))
    # The mutations are no empty gesture: the results depend on what is read.
    what = checkpoint_mutations.damage(tmp_path / "folder", random.Random(0))
    assert what
