"""Random streams: each use of chance has a generator of its own, named by the run's seed and what it is for."""

import hashlib
import json

import torch


def seeded_generator(seed: int, *labels: str | int) -> torch.Generator:
    """A CPU generator whose stream depends only on the seed and the labels ("imagine", iteration, …).

    A fresh stream for each use makes a resumed run draw what an uninterrupted one draws, with no state to save.
    """
    return torch.Generator().manual_seed(_number(seed, *labels) & (2**63 - 1))


def seed_of(seed: int, *labels: str | int) -> int:
    """A seed for a part of the work that has its own, in [0, 2^31): it depends only on the seed and the labels.

    Sums would meet: round 2 of the seed 0 would draw what round 1 of the seed 1 does.
    """
    return _number(seed, *labels) & (2**31 - 1)


def _number(seed: int, *labels: str | int) -> int:
    digest = hashlib.sha256(json.dumps([seed, *labels]).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def episode_generators(generator: torch.Generator, count: int) -> list[torch.Generator]:
    """A generator for each of `count` episodes, seeded by the next `count` numbers of `generator`, one each.

    Episodes that come in several calls get the same streams as in one call.
    """
    return [torch.Generator().manual_seed(seed) for seed in _episode_seeds(generator, count)]


def skip_episodes(generator: torch.Generator, count: int) -> torch.Generator:
    """The generator, as it is after `episode_generators` made streams for `count` episodes that others work on."""
    _episode_seeds(generator, count)
    return generator


def _episode_seeds(generator: torch.Generator, count: int) -> list[int]:
    # One call a number: the stream of a longer draw need not begin like that of a shorter one.
    return [int(torch.randint(2**62, (1,), generator=generator)) for _ in range(count)]
