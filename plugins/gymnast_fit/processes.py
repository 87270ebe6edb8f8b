"""Training in several processes (whole weights in each, or FSDP2): who computes what.

The microbatches of a step are divided over the processes in order; process 0 (the leader) alone logs, validates and
writes. Gradients are added up over the processes once a step; running statistics (batch norm) are the leader's.
"""

from __future__ import annotations

import lightning

from gymnast_core.errors import ConfigError
from gymnast_core.training.trainer import ShardedStrategy, build_trainer, precision_of
from gymnast_fit.config import FitConfig

ADVICE = "raise fit.microbatches. Go on from the last snapshot with gymnast fit --resume RUN."
"""For the user whose process was killed."""


def fit_trainer(config: FitConfig) -> lightning.Trainer:
    """Lightning's Trainer as the config wants it.

    Raises `ConfigError` for a number of processes that does not divide the microbatches, and for precisions that need
    another number format than float32 weights with float32 or bfloat16 arithmetic.
    """
    precision_of(config.trainer)
    options = {key: value for key, value in config.trainer.items() if key != "precision"}
    trainer = build_trainer(options, shards=True)
    count = trainer.world_size
    if config.fit.microbatches % count:
        raise ConfigError(
            f"trainer asks for {count} processes, which share the microbatches of a step: set fit.microbatches to a "
            f"multiple of {count} (it is {config.fit.microbatches}), or trainer.devices=1."
        )
    if isinstance(trainer.strategy, ShardedStrategy):
        for name, wrong in (("ema", config.fit.ema > 0), ("optimizer", config.fit.optimizer != "adamw")):
            if wrong:
                raise ConfigError(
                    f"fit.{name}={getattr(config.fit, name)} needs whole weights in each process: leave it out, or set "
                    "trainer.strategy=ddp."
                )
    return trainer


def own_microbatches(config: FitConfig, rank: int, count: int) -> range:
    """The microbatches of every step that process `rank` of `count` computes."""
    each = config.fit.microbatches // count
    return range(rank * each, (rank + 1) * each)
