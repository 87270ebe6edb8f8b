"""What surrounds a training, in one process."""

from __future__ import annotations

import lightning
import pytest

from gymnast_core.training.together import together


def trainer() -> lightning.Trainer:
    return lightning.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="out of paper"), together(trainer(), ""):
        raise RuntimeError("out of paper")
