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

    Raises `ConfigError` for more processes than microbatches, or weights shared by a number of processes that does not
    divide them, and for precisions other than float32 weights with float32 or bfloat16 arithmetic.
    """
    precision_of(config.trainer)
    options = {key: value for key, value in config.trainer.items() if key != "precision"}
    trainer = build_trainer(options, shards=True)
    count, microbatches = trainer.world_size, config.fit.microbatches
    sharded = isinstance(trainer.strategy, ShardedStrategy)
    # Of shared weights, every pass needs every process.
    if microbatches < count or (sharded and microbatches % count):
        wanted = f"a multiple of {count}" if sharded else f"{count} or more"
        raise ConfigError(
            f"trainer asks for {count} processes, which share the microbatches of a step: set fit.microbatches to "
            f"{wanted} (it is {microbatches}), or trainer.devices=1."
        )
    if sharded:
        for name, wrong in (("ema", config.fit.ema > 0), ("optimizer", config.fit.optimizer != "adamw")):
            if wrong:
                raise ConfigError(
                    f"fit.{name}={getattr(config.fit, name)} needs whole weights in each process: leave it out, or set "
                    "trainer.strategy=ddp."
                )
    return trainer


def own_microbatches(config: FitConfig, rank: int, count: int) -> range:
    """The microbatches of every step that process `rank` of `count` computes."""
    whole = config.fit.microbatches
    return range(whole * rank // count, whole * (rank + 1) // count)
