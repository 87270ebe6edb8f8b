"""Which policies fit which worlds: asked of their configs, before anything heavy is built."""

from __future__ import annotations

from collections.abc import Mapping

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Policy
from gymnast_core.plugins.compose import check_needs, needs_of, offers_of
from gymnast_core.types import Task


def ask_all(
    policies: Mapping[str, ComponentConfig], worlds: Mapping[str, ComponentConfig], *, key: str = "worlds."
) -> None:
    """Ask every policy what it needs and every world what it offers: raises what is wrong with any alone, such as a
    checkpoint that is not there, before environments are started for tasks."""
    for label, part in policies.items():
        needs_of(part, f"policies.{label}")
    for label, part in worlds.items():
        offers_of(part, f"{key}{label}")


def check_all_needs(
    policies: Mapping[str, ComponentConfig],
    worlds: Mapping[str, ComponentConfig],
    task: Task,
    dataset: str,
    *,
    key: str = "worlds.",
) -> None:
    """Raises `ConfigError` that lists every policy and world, by label, that do not fit each other or the tasks.

    A world's place in the config is `key` and its label. What is wrong with one alone was told by `ask_all`, before
    there were tasks.
    """
    misfits: dict[str, list[str]] = {}
    for policy_label, policy in policies.items():
        for world_label, world in worlds.items():
            keys = (f"policies.{policy_label}", f"{key}{world_label}")
            try:
                check_needs(policy, world, task, dataset, keys=keys)
            except ConfigError as error:
                misfits.setdefault(str(error), []).append(f"{policy_label} in {world_label or world.name}")
    count = sum(map(len, misfits.values()))
    if count == 1:
        raise ConfigError(next(iter(misfits)))
    if misfits:
        listed = "".join(f"\n- {', '.join(pairs)}: {reason}" for reason, pairs in misfits.items())
        raise ConfigError(f"{count} pairs of a policy and a world do not fit:{listed}")


def check_chunks(horizon: int, label: str, policy: Policy) -> None:
    """Raises `ConfigError` if the horizon is not a multiple of the policy's chunk length."""
    length = policy.chunk_length
    if horizon % length:
        raise ConfigError(
            f"A horizon of {horizon} actions is not a multiple of the chunk length {length} of the policy {label!r}; "
            f"set horizon={horizon // length * length or length}."
        )
