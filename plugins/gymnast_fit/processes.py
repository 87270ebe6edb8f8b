"""Training in several processes (distributed data parallel, or FSDP2): who computes what.

The microbatches of a step are divided over the processes in order; process 0 (the leader) alone logs, validates and
writes. Gradients are averaged over the processes once a step; running statistics (batch norm) are the leader's.
"""

from __future__ import annotations

import lightning

from gymnast_core.errors import ConfigError
from gymnast_core.training.trainer import ShardedStrategy, build_trainer
from gymnast_fit.config import FitConfig

ADVICE = "raise fit.microbatches. Go on from the last snapshot with gymnast fit --resume RUN."
"""For the user whose process was killed."""


def fit_trainer(config: FitConfig) -> lightning.Trainer:
    """Lightning's Trainer as the config wants it.

    Raises `ConfigError` for a number of processes that does not divide the microbatches, and for precisions that need
    loss scaling or change the weights' own dtype.
    """
    trainer = build_trainer(config.trainer, shards=True)
    count = trainer.world_size
    if config.fit.microbatches % count:
        raise ConfigError(
            f"trainer asks for {count} processes, which share the microbatches of a step: set fit.microbatches to a "
            f"multiple of {count} (it is {config.fit.microbatches}), or trainer.devices=1."
        )
    # Under manual optimisation nothing undoes the loss scaling of float16.
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        raise ConfigError(f"trainer.precision={trainer.precision} needs loss scaling; use bf16-mixed or 32-true.")
    if trainer.precision not in ("32-true", "bf16-mixed"):
        raise ConfigError(
            f"trainer.precision={trainer.precision} would change the weights' own dtype; use bf16-mixed or 32-true."
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
