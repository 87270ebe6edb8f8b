"""Building Lightning's Trainer from the config's `trainer` section."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from gymnast_core.errors import ConfigError

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
"""Lightning's names of those under which a step means the same in one process and in several."""

SHARDED = "fsdp2"
"""Our name of Lightning's ModelParallelStrategy over all processes, for loops that can gather what they save."""

_OURS = {
    "logger": "metrics go to metrics.csv and tensorboard/ of the run folder",
    "enable_checkpointing": "snapshots are written every checkpoint_every steps",
    "gradient_clip_val": "set optimizer.args.max_grad_norm (train) or fit.max_grad_norm (fit)",
    "max_steps": "set loop.iterations (train) or fit.steps (fit)",
    "max_epochs": "set loop.iterations (train) or fit.steps (fit)",
    "callbacks": "return them from the hook gymnast_callbacks",
}


class ShardedStrategy(ModelParallelStrategy):
    """Every process holds a part of the weights, and computes its share of the batch."""

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_processes * self.num_nodes, 1
        super().setup_environment()


def build_trainer(
    options: Mapping[str, Any], callbacks: Sequence[lightning.Callback] = (), *, shards: bool = False
) -> lightning.Trainer:
    """A Trainer with our loop's fixed settings and the user's `options`, which are Trainer's own arguments.

    `shards` says that the loop can do with a part of the weights in each process (strategy "fsdp2"). Raises
    `ConfigError` for an option that Trainer does not know or that the loop has to set itself.
    """
    for key in options:
        if key in _OURS:
            raise ConfigError(f"trainer.{key} cannot be set: {_OURS[key]}.")
    strategy = options.get("strategy", "auto")
    if strategy == SHARDED and shards:
        options = {**options, "strategy": ShardedStrategy()}
    elif strategy not in STRATEGIES:
        known = f"{', '.join(STRATEGIES)} (the last one if a loss leaves parameters out)"
        whole = f"{known}; {SHARDED} shares them out" if shards else known
        raise ConfigError(f"trainer.strategy={strategy}: the weights are whole in every process. Choose {whole}.")
    # Lightning's hints on workers, loggers and checkpoints concern choices that this loop makes itself.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning.*")
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler")
    arguments = {"accelerator": "auto", "devices": 1, "max_epochs": 1, **dict.fromkeys(off, False), **options}
    try:
        trainer = lightning.Trainer(callbacks=list(callbacks), **arguments)
    except TypeError as error:
        raise ConfigError(f"trainer: {error}. Allowed are the arguments of lightning.Trainer.") from error
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"trainer: {error}") from error
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.set_device(trainer.strategy.root_device)  # "cuda" means this one to whatever is built after this
    return trainer
