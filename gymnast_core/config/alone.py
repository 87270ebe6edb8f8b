"""Commands that train as one of several steps, in the process in which they were typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnast_core.errors import ConfigError


def refuse_several_processes(trainer: Mapping[str, Any], key: str, advice: str) -> None:
    """Raise `ConfigError` for `devices` or `num_nodes` other than one, or as many as the machine has.

    Lightning starts the others by the command that was typed, which would begin all steps once more instead of joining
    the training. `key` is that of the section, e.g. "train.trainer"; `advice` is a sentence on what to do instead.
    """
    for name in ("devices", "num_nodes"):
        if not _is_one(trainer.get(name, 1)):
            raise ConfigError(
                f"{key}.{name}={trainer[name]}: this command trains in one process. Set it to 1, or leave it out. "
                f"{advice}"
            )


def _is_one(wanted: Any) -> bool:
    """Whether what `lightning.Trainer` is told is surely one device, or one node: 1, or a single index ([3], "3,")."""
    if isinstance(wanted, str) and "," in wanted:
        wanted = [index for index in wanted.split(",") if index]
    return len(wanted) == 1 if isinstance(wanted, list | tuple) else wanted in (1, "1")
