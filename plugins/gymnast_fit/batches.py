"""Which episodes each step trains on: a function of the seed and the step alone. How they are read: lazily."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from gymnast_core.errors import DataError, GymnastError
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Episode


class SeededBatches(Sampler[list[int]]):
    """Batches of episode indices; each epoch is a permutation drawn from (seed, epoch), so any step can be resumed.

    `part` is the slice of every batch that this process trains on.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, start: int, steps: int, part: slice = slice(None)
    ) -> None:
        self.count, self.batch_size, self.seed, self.start, self.steps = count, batch_size, seed, start, steps
        self.part = part

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, torch.empty(0, dtype=torch.long)
        for step in range(self.start, self.steps):
            batch = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                if position // self.count != epoch:
                    epoch = position // self.count
                    order = torch.randperm(self.count, generator=seeded_generator(self.seed, "epoch", epoch))
                batch.append(int(order[position % self.count]))
            yield batch[self.part]


@dataclass(frozen=True)
class Unreadable:
    """Stands in a batch for an episode that could not be read."""

    error: GymnastError


class _Indexed(Dataset[Episode | Unreadable]):
    def __init__(self, episodes: Sequence[Episode]) -> None:
        self.episodes = episodes

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Episode | Unreadable:
        # The loader would turn what a worker raises into a traceback; travelling as data, the message stays one.
        try:
            return self.episodes[index]
        except GymnastError as error:
            return Unreadable(error)


class _Loader(DataLoader[Episode | Unreadable]):
    """A loader that tells the end of a worker from an error that a dataset raised in one."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        others = set(multiprocessing.active_children())
        batches = super().__iter__()
        workers = set(multiprocessing.active_children()) - others
        try:
            yield from batches
        except RuntimeError as error:
            if not any(worker.exitcode for worker in workers):
                raise
            raise DataError(
                f"A process that reads episodes ended: {' '.join(str(error).split())} Most often memory ran out: lower "
                f"fit.workers ({self.num_workers})."
            ) from error


def episode_loader(
    episodes: Sequence[Episode], batches: SeededBatches, workers: int
) -> DataLoader[Episode | Unreadable]:
    """Lists of episodes, read by `workers` processes (0: this one); the batches are the same for any number.

    Iterating raises `DataError` if one of those processes ends.
    """
    # Without a generator of its own, the loader draws its workers' seeds from the global one.
    generator = seeded_generator(batches.seed, "workers")
    return _Loader(
        _Indexed(episodes),
        batch_sampler=batches,
        collate_fn=list,
        num_workers=workers,
        generator=generator,
        worker_init_fn=_let_the_trainer_speak,
    )


def readable(batch: Sequence[Episode | Unreadable]) -> list[Episode]:
    """The batch's episodes. Raises the error of the first one that could not be read."""
    for item in batch:
        if isinstance(item, Unreadable):
            raise item.error
    return [item for item in batch if isinstance(item, Episode)]


def _let_the_trainer_speak(worker: int) -> None:
    # The terminal interrupts every process of the command; only the training process has something to say about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _unless_disconnected


def _unless_disconnected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # The thread that hands out tensors finds the training process gone; the worker ends a moment later.
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
