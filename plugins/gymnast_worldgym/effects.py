"""Options that another one leaves without effect: refused, so that nobody believes in a setting that does nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from gymnast_core.errors import ConfigError
from gymnast_worldgym.architecture import Architecture, Sampling
from gymnast_worldgym.training import TrainingConfig

log = logging.getLogger(__name__)

OF_AUTOENCODER = ("vae", "vae_revision", "vae_subfolder", "vae_batch", "latent_cache")


def check_effects(
    config: Any, architecture: Architecture, sampling: Sampling, training: TrainingConfig, pretrained: bool
) -> None:
    """Raises `ConfigError` for options of a `WorldGym.Config` that have no effect beside the others.

    Only what the user says is refused; of a preset, what has no use here is passed over.
    """
    _check_latents(config, architecture, training)
    _check_actions(config)
    if architecture.prediction == "flow" and config.stabilization_level is not None:
        raise ConfigError(
            "stabilization_level has no effect with prediction: flow, whose context frames are shown as they are. "
            "Leave it out."
        )
    most = architecture.most_new
    if sampling.horizon is not None and sampling.horizon > most:
        raise ConfigError(
            f"horizon is {sampling.horizon}, but a window of {architecture.window} frames holds at most {most} new "
            f"ones beside {_beside(architecture)}. Set horizon to {most} or less, or to null: whole action chunks up "
            f"to {most}."
        )
    if architecture.changes and sampling.denoising_steps > 1 and sampling.horizon != 1:
        raise ConfigError(
            "prediction: change paints on the finished frame before, and with denoising_steps: "
            f"{sampling.denoising_steps}, frames that are denoised together are not finished. "
            "Set horizon to 1, or denoising_steps to 1."
        )
    if architecture.memory and sampling.streaming:
        raise ConfigError(
            "streaming keeps what the frames before were encoded to, but with memory all of it changes with what is "
            "remembered. Leave streaming out, or choose a checkpoint without memory."
        )
    if training.own_previous > 0 and not architecture.changes:
        raise ConfigError(
            f"own_previous is of prediction: change; this one is {architecture.prediction}. Leave it out."
        )
    _check_camera_weights(architecture, training)
    if training.clean_fraction == 1.0 and config.pure_noise_fraction:
        raise ConfigError(
            "pure_noise_fraction is a share of the frames that are not nearly clean; with clean_fraction: 1 there are "
            "none. Leave it out, or lower clean_fraction."
        )
    if not pretrained:
        _check_null_action(architecture, sampling, training)
    if not pretrained and sampling.guidance != 1.0 and training.action_dropout == 0.0:
        log.warning(
            "guidance=%g compares with the null action, which a model trained with action_dropout=0 never sees. Set "
            "action_dropout (published: 0.1), or guidance to 1.",
            sampling.guidance,
        )


def _check_null_action(architecture: Architecture, sampling: Sampling, training: TrainingConfig) -> None:
    """Zeros with a last component of 1 stand for "no action". Warns where an action of the robot may look the same."""
    width = architecture.action_width
    if width == architecture.action_dim and (training.action_dropout or sampling.guidance != 1.0):
        log.warning(
            "Actions of the robot fill all of action_dim=%d, so that \"no action\" (zeros and a last 1), which "
            "action_dropout and guidance use, is also an action of its own. Set action_dim=%d, or leave those out.",
            width, width + 1,
        )  # fmt: skip


def _check_camera_weights(architecture: Architecture, training: TrainingConfig) -> None:
    weights = training.camera_weights
    if weights is None:
        return
    if architecture.views == 1:
        raise ConfigError(
            "camera_weights: one camera is imagined, which has all of the loss. Leave camera_weights out."
        )
    if len(weights) != architecture.views:
        raise ConfigError(
            f"camera_weights has {len(weights)} {'number' if len(weights) == 1 else 'numbers'}, and the cameras are "
            f"{', '.join(architecture.cameras)}: give one for each, in this order."
        )


def _beside(architecture: Architecture) -> str:
    remembered = f"{architecture.memory} remembered ones and " if architecture.memory else ""
    return f"{remembered}one of context"


def _check_latents(config: Any, architecture: Architecture, training: TrainingConfig) -> None:
    if architecture.codec == "autoencoder-kl":
        if training.pixel_weights is not None:
            raise ConfigError("pixel_weights needs codec: pixels.")
        _check_folder(config)
        return
    idle = [name for name in OF_AUTOENCODER if getattr(config, name) is not None]
    if idle:
        raise ConfigError(
            f"{' and '.join(idle)} {'needs' if len(idle) == 1 else 'need'} codec: autoencoder-kl; it is pixels."
        )


def _check_folder(config: Any) -> None:
    """Revision and subfolder of a repository, given beside a folder of this machine."""
    folder = None if config.vae is None else Path(config.vae).expanduser()
    if folder is None or not folder.is_dir():
        return
    if config.vae_revision is not None:
        raise ConfigError(f"vae_revision is of a Hugging Face repository; vae is the folder {folder}. Leave it out.")
    if config.vae_subfolder is not None and not (folder / config.vae_subfolder).is_dir():
        raise ConfigError(f"vae_subfolder: {folder} has no folder {config.vae_subfolder!r}. Leave it out.")


def _check_actions(config: Any) -> None:
    scaling = [
        name for name in ("robot_action_dim", "action_scale", "action_offset") if getattr(config, name) is not None
    ]
    if config.robot is not None and scaling:
        raise ConfigError(
            f"robot {config.robot!r} already says how actions are scaled: leave out {', '.join(scaling)}, or the robot."
        )
