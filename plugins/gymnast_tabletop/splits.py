"""Disjoint ranges of seeds, so that what is reported was never trained on nor chosen by."""

from __future__ import annotations

from gymnast_core.errors import ConfigError, unknown_name

SPLITS: dict[str, range] = {
    "training": range(0, 1 << 30),
    "choosing": range(1 << 30, (1 << 30) + (1 << 29)),
    "reporting": range((1 << 30) + (1 << 29), (1 << 31) - 1),
}
"""Training policies and models; choosing checkpoints and settings; reporting results."""


def split_seed(split: str, index: int) -> int:
    """The `index`-th seed of a split. Raises `ConfigError` for an unknown split or an index beyond it."""
    if split not in SPLITS:
        raise ConfigError(unknown_name("split", split, SPLITS))
    seeds = SPLITS[split]
    if not 0 <= index < len(seeds):
        raise ConfigError(f"Split {split!r} has seeds 0 to {len(seeds) - 1}, not {index}. Choose a smaller index.")
    return seeds[index]
