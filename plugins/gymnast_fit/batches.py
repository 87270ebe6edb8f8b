"""Which episodes each step trains on: a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from gymnast_core.snapshot import seeded_generator
from gymnast_core.types import Episode


class SeededBatches(Sampler[list[int]]):
    """Batches of episode indices; each epoch is a permutation drawn from (seed, epoch), so any step can be resumed."""

    def __init__(self, count: int, batch_size: int, seed: int, start: int, steps: int) -> None:
        self.count, self.batch_size, self.seed, self.start, self.steps = count, batch_size, seed, start, steps

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
            yield batch


class _Indexed(Dataset[Episode]):
    def __init__(self, episodes: Sequence[Episode]) -> None:
        self.episodes = episodes

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Episode:
        return self.episodes[index]


def episode_loader(episodes: Sequence[Episode], batches: SeededBatches, workers: int) -> DataLoader[Episode]:
    """Lists of episodes, read by `workers` processes (0: this one); the batches are the same for any number."""
    # Without a generator of its own, the loader draws its workers' seeds from the global one.
    generator = seeded_generator(batches.seed, "workers")
    return DataLoader(
        _Indexed(episodes), batch_sampler=batches, collate_fn=list, num_workers=workers, generator=generator
    )
