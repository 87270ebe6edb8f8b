"""Building Lightning's Trainer from the config's `trainer` section."""

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, distributed

from gymnast_core.config.scalars import as_number
from gymnast_core.errors import ConfigError, unknown_name
from gymnast_core.training.launcher import watching

STRATEGIES = ("auto", "ddp")
"""Those under which every process holds whole weights."""

SHARDED = "fsdp2"
"""Our name of Lightning's ModelParallelStrategy over all processes, for loops that can gather what they save."""

PRECISIONS = {"32-true": "32-true", "32": "32-true", 32: "32-true", "bf16-mixed": "bf16-mixed"}
"""What `trainer.precision` may be: anything else scales losses or changes the weights' own dtype."""

_OURS = {
    "logger": "metrics go to metrics.csv and tensorboard/ of the run folder",
    "enable_checkpointing": "snapshots are written every checkpoint_every steps",
    "gradient_clip_val": "set optimizer.args.max_grad_norm (train) or fit.max_grad_norm (fit)",
    "accumulate_grad_batches": "set loop.micro_batch_size (train) or fit.microbatches (fit)",
    "max_steps": "set loop.iterations (train) or fit.steps (fit)",
    "max_epochs": "set loop.iterations (train) or fit.steps (fit)",
    "callbacks": "return them from the hook gymnast_callbacks",
}


class WholeWeightsStrategy(DDPStrategy):
    """Every process holds whole weights, and the loop itself adds gradients up once a step (`Processes.sum_gradients`).

    Not DistributedDataParallel, which averages over processes in every backward pass: a loss that is a sum over unequal
    shares is no average, and processes may have different numbers of passes.
    """

    def _configure_launcher(self) -> None:
        super()._configure_launcher()
        self._launcher = watching(self._launcher)

    def configure_ddp(self) -> None:
        """Begin with the leader's weights everywhere."""
        assert self.model is not None
        for tensor in self.model.state_dict().values():
            if isinstance(tensor, Tensor):
                distributed.broadcast(tensor.data, src=0)

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Nothing to prepare."""


class ShardedStrategy(ModelParallelStrategy):
    """Every process holds a part of the weights, and computes its share of the batch."""

    def _configure_launcher(self) -> None:
        super()._configure_launcher()
        self._launcher = watching(self._launcher)

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_processes * self.num_nodes, 1
        super().setup_environment()


def precision_of(options: Mapping[str, Any]) -> str:
    """What `trainer.precision` says: "32-true" or "bf16-mixed". Raises `ConfigError` for anything else."""
    wanted = options.get("precision", "32-true")
    if (error := _refused_precision(wanted)) is not None:
        raise error
    return PRECISIONS[wanted]


def refused_options(options: Mapping[str, Any], *, shards: bool = False) -> Iterator[ConfigError]:
    """What of the section `trainer` cannot be, as far as that shows without building a Trainer: an error each."""
    known = inspect.signature(lightning.Trainer).parameters
    for key in options:
        if key in _OURS:
            yield ConfigError(f"trainer.{key} cannot be set: {_OURS[key]}.")
        elif key not in known:
            yield ConfigError(f"trainer.{key}: {unknown_name('argument of lightning.Trainer', key, known)}")
    for error in (_refused_precision(options.get("precision", "32-true")), _refused_strategy(options, shards)):
        if error is not None:
            yield error


def build_trainer(
    options: Mapping[str, Any], callbacks: Sequence[lightning.Callback] = (), *, shards: bool = False
) -> lightning.Trainer:
    """A Trainer with our loops' fixed settings and the user's `options`, which are Trainer's own arguments.

    `shards` says that the loop can do with a part of the weights in each process (strategy "fsdp2"). Raises
    `ConfigError` for an option that Trainer does not know or that the loop has to set itself.
    """
    for key in options:
        if key in _OURS:
            raise ConfigError(f"trainer.{key} cannot be set: {_OURS[key]}.")
    # Lightning's hints on workers, loggers and checkpoints concern choices that this loop makes itself.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning.*")
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler")
    arguments: dict[str, Any] = {"accelerator": "auto", "devices": 1, "max_epochs": 1, **dict.fromkeys(off, False)}
    arguments |= {**as_number(dict(options)), "strategy": _strategy(options, shards)}
    try:
        trainer = lightning.Trainer(callbacks=list(callbacks), **arguments)
    except TypeError as error:
        raise ConfigError(f"trainer: {error}. Allowed are the arguments of lightning.Trainer.") from error
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"trainer: {error}") from error
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.set_device(trainer.strategy.root_device)  # "cuda" means this one to whatever is built after this
    return trainer


def _refused_precision(wanted: Any) -> ConfigError | None:
    if isinstance(wanted, str | int) and wanted in PRECISIONS:
        return None
    return ConfigError(
        f"trainer.precision={wanted} would scale the loss or change the weights' own dtype; use bf16-mixed or 32-true."
    )


def _refused_strategy(options: Mapping[str, Any], shards: bool) -> ConfigError | None:
    wanted = options.get("strategy", "auto")
    if wanted in STRATEGIES or (wanted == SHARDED and shards):
        return None
    known = ", ".join(STRATEGIES) + (f"; {SHARDED} shares them out" if shards else "")
    return ConfigError(f"trainer.strategy={wanted}: the weights are whole in every process. Choose {known}.")


def _strategy(options: Mapping[str, Any], shards: bool) -> Any:
    wanted = options.get("strategy", "auto")
    if (error := _refused_strategy(options, shards)) is not None:
        raise error
    if wanted == SHARDED:
        return ShardedStrategy()
    several = options.get("devices", 1) not in (1, "1") or options.get("num_nodes", 1) not in (1, "1")
    return WholeWeightsStrategy() if several or wanted == "ddp" else "auto"
