"""The processes of one command: who this one is, and how numbers get from one to another."""

import io
import pickle
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")
_BUCKET_BYTES = 64 * 2**20
"""Gradients are added up over the processes in pieces of this size: one message each, and little extra memory."""


class Processes:
    """All processes that work on one training, or this one alone. What they tell each other passes through here.

    A process that asks for a sum waits until all others ask for it, too: call the same methods in the same order in
    every process.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None) -> None:
        """`group` are the connections that are used; None: those of the training."""
        self._group = group
        self.bytes_told = 0
        """Bytes that this process has told each other one, gradients left out."""
        self.gradient_bytes = 0
        """Bytes of gradients that this process has put into sums."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0; process 0 leads: it alone speaks and writes."""
        return distributed.get_rank() if distributed.is_initialized() else 0

    @property
    def count(self) -> int:
        return distributed.get_world_size() if distributed.is_initialized() else 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The value of each process, by rank. Meant for numbers and names, not for frames."""
        if self.count == 1:
            return [value]
        self.bytes_told += _pickled_size(value)
        every: list[T | None] = [None] * self.count
        distributed.all_gather_object(every, value, group=self._group)
        return every  # type: ignore[return-value]

    def sum(self, values: Tensor) -> Tensor:
        """The sum of the processes' tensors of one shape, in their dtype and on their device."""
        if self.count == 1:
            return values
        self.bytes_told += values.numel() * values.element_size()
        total = values.clone()
        distributed.all_reduce(total, group=self._group)
        return total

    def broadcast(self, value: T) -> T:
        """The leader's value."""
        return self.gather(value if self.leads else None)[0]  # type: ignore[return-value]

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            distributed.barrier(self._group)

    def apart(self) -> "Processes":
        """The same processes over connections of their own, for a thread that works while the training goes on: what
        it asks for is not mixed up with what the training asks for. On the CPU; every process must ask."""
        return Processes(distributed.new_group(backend="gloo")) if self.count > 1 else Alone()

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes; a parameter that none has a gradient of keeps none."""
        if self.count == 1 or not parameters:
            return
        device = parameters[0].device
        has = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32, device=device)
        distributed.all_reduce(has, op=distributed.ReduceOp.MAX)
        bucket: list[nn.Parameter] = []
        for parameter, anywhere in zip(parameters, has.tolist(), strict=True):
            if not anywhere:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if bucket and (bucket[0].grad.dtype != parameter.grad.dtype or _bytes(bucket) > _BUCKET_BYTES):  # type: ignore[union-attr]
                self._sum_bucket(bucket)
                bucket = []
            bucket.append(parameter)
        self._sum_bucket(bucket)

    def _sum_bucket(self, bucket: list[nn.Parameter]) -> None:
        if not bucket:
            return
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.gradient_bytes += flat.numel() * flat.element_size()
        distributed.all_reduce(flat)
        for gradient, total in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))


class Alone(Processes):
    """This process by itself, whatever others there are: for what it does without them."""

    @property
    def rank(self) -> int:
        return 0

    @property
    def count(self) -> int:
        return 1


def _bytes(parameters: Sequence[nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def _pickled_size(value: object) -> int:
    counter = io.BytesIO()
    pickle.dump(value, counter)
    return counter.tell()
