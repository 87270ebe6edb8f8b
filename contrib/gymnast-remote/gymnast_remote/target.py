"""What `gymnast serve` is told to serve: a policy's name with arguments, or the folder of a trained one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError
from gymnast_core.hub import args_of_saved
from gymnast_core.plugins.compose import registries
from gymnast_core.plugins.places import arguments_of
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

CHECKPOINTS = ("policy", "checkpoint")
"""Where runs keep the trained policy: `gymnast train`, `gymnast fit`."""


def find_target(target: str, overrides: Sequence[str]) -> ComponentConfig:
    """The policy called `target`, or that of the run (or of the checkpoint in a run) in the folder `target`.

    `overrides` are `key=value` arguments of the policy, also as `policy.args.key=value`. Raises `ConfigError`, and
    `PluginError` for a policy that is not installed.
    """
    policies = registries().policies
    folder = Path(target)
    # An installed policy is meant by its name, whatever folders lie around; ./NAME is the folder.
    if not folder.is_dir() or target in policies.names():
        if len(folder.parts) > 1:
            raise ConfigError(f"There is no folder {target}. Name a policy (see `gymnast plugins`) or a run folder.")
        return ComponentConfig(target, arguments_of(policies, target, overrides))
    part, checkpoint = _trained(folder)
    args = arguments_of(policies, str(part["name"]), overrides)
    return ComponentConfig(str(part["name"]), {**args_of_saved(part.get("args", {}), checkpoint), **args})


def _trained(folder: Path) -> tuple[dict[str, Any], Path]:
    """The `policy` of a run's config, and the checkpoint that the run left."""
    inside = folder.resolve()
    if (inside / "config.yaml").is_file():
        found = [inside / name for name in CHECKPOINTS if (inside / name).is_dir()]
        if not found:
            raise ConfigError(f"The run {folder} has left no {' or '.join(CHECKPOINTS)} folder: it has not ended yet.")
        run, checkpoint = inside, found[0]
    else:
        run, checkpoint = inside.parent, inside
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"), resolve=True)
        part = config["policy"]
        part = {"name": part} if isinstance(part, str) else part
        return {"name": part["name"], "args": dict(part.get("args") or {})}, checkpoint
    except (OSError, OmegaConfBaseException, YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise ConfigError(
            f"{folder} does not say which policy it holds: {run / 'config.yaml'} is not the config of a run with a "
            f"policy. Name the policy: gymnast serve openvla-oft checkpoint={folder}"
        ) from None
