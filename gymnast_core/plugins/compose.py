"""From names to the parts of a run: the one place that knows both what a config asks for and where plugins are."""

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from gymnast_core.config.schema import ComponentConfig, RunConfig
from gymnast_core.distinct_tasks import distinct
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.plugins.early import needs_demonstrations
from gymnast_core.plugins.hooks import check_sections
from gymnast_core.plugins.registry import Registry, registries
from gymnast_core.processes import Processes
from gymnast_core.rollouts.sight import Names, find_sight
from gymnast_core.short_episodes import long_enough
from gymnast_core.types import Episode, Needs, Offers, Task

T = TypeVar("T")
logger = logging.getLogger(__name__)


def build_parts(config: RunConfig, *, left: int | None, processes: Processes) -> Parts:
    """Build every part of a run, `left` iterations of which are to come (None: do not ask what they cost).

    Everything that can be refused is refused before anything heavy is loaded. Raises `ConfigError`, `DataError`,
    `PluginError`, `CheckpointError`.
    """
    known = registries()
    check_sections(config.hooks)

    def build(registry: Registry[T], key: str) -> T:
        part: ComponentConfig = getattr(config, key)
        return registry.build(part.name, part.args, key=key)

    optimizer = build(known.optimizers, "optimizer")
    # What is wrong with these alone is told before environments are started for tasks.
    needs_of(config.policy)
    offers_of(config.world_model)
    tasks = load_tasks(config.tasks)
    check_needs(config.policy, config.world_model, tasks[0], config.tasks.name)
    reward_model = build(known.reward_models, "reward_model")
    if left is not None:
        groups = left * config.loop.tasks_per_iteration
        reward_model.preflight(groups * optimizer.group_size, 1 + config.loop.horizon)
        if config.loop.max_draws > 1 and type(reward_model).preflight is not RewardModel.preflight:
            logger.info(
                "Estimates of what judging costs are of one draw an iteration. Where groups teach nothing, others are "
                "drawn in their place: up to loop.max_draws=%d times as many rollouts are judged.",
                config.loop.max_draws,
            )  # fmt: skip
    demonstrations: Sequence[Episode] = ()
    if optimizer.demonstrations_per_rollout:
        if config.demonstrations is None:
            raise needs_demonstrations(config.optimizer.name)
        demonstrations = build(known.datasets, "demonstrations").episodes()
        if not len(demonstrations):
            raise DataError(f"The dataset {config.demonstrations.name!r} holds no demonstrations.")
    policy, world_model = build(known.policies, "policy"), build(known.world_models, "world_model")
    demonstrations = long_enough(demonstrations, policy, "demonstrations")
    return Parts(policy, world_model, reward_model, optimizer, tasks, demonstrations, config, processes)


def load_tasks(part: ComponentConfig, key: str = "tasks") -> Sequence[Task]:
    """The tasks of a dataset. Raises `DataError` if there are none, or if two have one id (`distinct`)."""
    tasks = registries().datasets.build(part.name, part.args, key=key).tasks()
    if not len(tasks):
        raise DataError(f"The dataset {part.name!r} holds no tasks.")
    return distinct(tasks, f"the dataset {part.name!r} ({key})")


def needs_of(policy: ComponentConfig, key: str = "policy") -> Needs:
    """What a policy needs to see, from its config alone. A checkpoint that is not there is told here, before
    environments are started for tasks: raises what the policy raises."""
    registry = registries().policies
    cls: Any = registry.load(policy.name)
    return cls.needs(registry.configure(policy.name, policy.args, key=key))


def offers_of(world_model: ComponentConfig, key: str = "world_model") -> Offers:
    """What a world shows, from its config alone; as `needs_of`."""
    registry = registries().world_models
    cls: Any = registry.load(world_model.name)
    return cls.offers(registry.configure(world_model.name, world_model.args, key=key))


def check_needs(
    policy: ComponentConfig,
    world_model: ComponentConfig,
    task: Task,
    dataset: str,
    *,
    keys: tuple[str, str] = ("policy", "world_model"),
) -> None:
    """Raises `ConfigError` if the policy needs what the world does not offer, or the task does not begin with; neither
    is built. `keys` are their places in the config."""
    needs, offers = needs_of(policy, keys[0]), offers_of(world_model, keys[1])
    names = Names(f"The policy {policy.name!r}", f"the world model {world_model.name!r}", f"the tasks of {dataset!r}")
    find_sight(needs, offers, task, names)
