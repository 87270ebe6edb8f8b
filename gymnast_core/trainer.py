"""Building Lightning's Trainer from the config's `trainer` section."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import lightning

from gymnast_core.errors import ConfigError

_OURS = {
    "logger": "metrics go to metrics.csv and tensorboard/ of the run folder",
    "enable_checkpointing": "snapshots are written every checkpoint_every steps",
    "gradient_clip_val": "set optimizer.args.max_grad_norm (train) or fit.max_grad_norm (fit)",
    "max_steps": "set loop.iterations (train) or fit.steps (fit)",
    "max_epochs": "set loop.iterations (train) or fit.steps (fit)",
    "callbacks": "return them from the hook gymnast_callbacks",
}


def build_trainer(options: Mapping[str, Any], callbacks: Sequence[lightning.Callback] = ()) -> lightning.Trainer:
    """A Trainer with our loop's fixed settings and the user's `options`, which are Trainer's own arguments.

    Raises `ConfigError` for an option that Trainer does not know or that the loop has to set itself.
    """
    for key in options:
        if key in _OURS:
            raise ConfigError(f"trainer.{key} cannot be set: {_OURS[key]}.")
    # Lightning's hints on workers, loggers and checkpoints concern choices that this loop makes itself.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning.*")
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    arguments = {"accelerator": "auto", "devices": 1, "max_epochs": 1, **off, **options}
    try:
        trainer = lightning.Trainer(callbacks=list(callbacks), **arguments)
    except TypeError as error:
        raise ConfigError(f"trainer: {error}. Allowed are the arguments of lightning.Trainer.") from error
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"trainer: {error}") from error
    if trainer.world_size > 1:
        raise ConfigError(f"trainer asks for {trainer.world_size} processes; there is one here. Set trainer.devices=1.")
    return trainer
