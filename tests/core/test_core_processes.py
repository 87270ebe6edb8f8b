"""One process alone: what several would tell each other, it has."""

from __future__ import annotations

import torch
from torch import nn

from gymnast_core.processes import Processes


def test_a_process_alone_leads_and_hears_itself() -> None:
    alone = Processes()
    assert (alone.rank, alone.count, alone.leads) == (0, 1, True)
    value = {"names": ["a"], "number": 1.5}
    assert alone.gather(value) == [value]
    assert alone.broadcast(value) is value
    tensor = torch.arange(3.0)
    assert torch.equal(alone.sum(tensor), tensor)
    alone.wait()
    assert (alone.bytes_told, alone.gradient_bytes) == (0, 0)


def test_a_process_alone_leaves_gradients_as_they_are() -> None:
    with_one, without = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    with_one.grad = torch.tensor([1.0, 2.0])
    Processes().sum_gradients([with_one, without])
    assert torch.equal(with_one.grad, torch.tensor([1.0, 2.0])) and without.grad is None
    Processes().sum_gradients([])
