"""What surrounds a training, in one process."""

from __future__ import annotations

import lightning
import pytest
import torch
from torch import nn

from gymnast_core.errors import GymnastError
from gymnast_core.training.processes import together


def trainer() -> lightning.Trainer:
    return lightning.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)


def test_an_infinite_gradient_is_one_message_with_the_way_on() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, float("nan")])
    with pytest.raises(GymnastError, match=r"infinite or NaN.*--resume RUN.*learning_rate"), together(trainer(), ""):
        nn.utils.clip_grad_norm_([weight], 1.0, error_if_nonfinite=True)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="out of paper"), together(trainer(), ""):
        raise RuntimeError("out of paper")
