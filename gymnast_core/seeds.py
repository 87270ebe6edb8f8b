"""Random streams: each use of chance has a generator of its own, named by the run's seed and what it is for."""

import hashlib
import json

import torch


def seeded_generator(seed: int, *labels: str | int) -> torch.Generator:
    """A CPU generator whose stream depends only on the seed and the labels ("imagine", iteration, …).

    A fresh stream for each use makes a resumed run draw what an uninterrupted one draws, with no state to save.
    """
    digest = hashlib.sha256(json.dumps([seed, *labels]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))
