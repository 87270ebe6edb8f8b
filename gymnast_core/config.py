"""What a command is told: dataclasses, filled from a preset or YAML file and `key=value` overrides."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gymnast_core.errors import ConfigError
from gymnast_core.presets import find_preset
from gymnast_core.schema import child, fields_of, typed

logger = logging.getLogger(__name__)
C = TypeVar("C")


@dataclass(frozen=True)
class ComponentConfig:
    """A plugin by name and the arguments merged over its `Config`."""

    name: str
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoopConfig:
    """Imagine, score, update."""

    iterations: int = 100
    """Batches of rollouts; a batch is `tasks_per_iteration` groups."""
    tasks_per_iteration: int = 8
    """Groups a batch, G."""
    horizon: int = 40
    """Actions an episode."""
    temperature: float = 1.0
    """Sampling temperature of the policy."""
    max_draws: int = 4
    """How often a batch is refilled by fresh tasks (dynamic sampling) before it goes on smaller."""
    groups_per_update: int | None = None
    """Groups that fill a batch; None means `tasks_per_iteration`. Surplus groups wait for the next one."""
    imagine_batch_size: int = 256
    """Episodes imagined at once, at most; each batch is judged while the next is imagined."""
    micro_batch_size: int | None = None
    """Trajectories whose gradient is computed at once (memory); None means a whole minibatch."""
    rescore: int = 1
    """How often rollouts that could not be judged are put to the reward model again."""
    drop_incomplete_groups: bool = False
    """Whether to drop a group of which a rollout stays unjudged; otherwise the judged ones teach."""
    max_error_rate: float = 0.5
    """Share of rollouts left unjudged above which the run stops, to be resumed."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How a run measures its policy: the same tasks in another world, judged by its own judge."""

    world: ComponentConfig = field(default_factory=lambda: ComponentConfig("gymnasium"))
    reward_model: ComponentConfig = field(default_factory=lambda: ComponentConfig("environment"))
    tasks: ComponentConfig | None = None
    """Held-out tasks; None skips evaluation."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy."""
    every: int = 0
    """Iterations between evaluations; 0 evaluates before and after the run only."""
    videos: int = 8
    """Rollout videos kept of each evaluation."""


@dataclass(frozen=True)
class RunConfig:
    """`gymnast train`: reinforcement learning of a policy in a world model."""

    kind: ClassVar[str] = "train"
    world_model: ComponentConfig
    policy: ComponentConfig
    reward_model: ComponentConfig
    optimizer: ComponentConfig
    tasks: ComponentConfig
    demonstrations: ComponentConfig | None = None
    """Episodes for algorithms that mix imitation into the updates."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `lightning.Trainer`."""
    seed: int = 0
    output: str | None = None
    """Run folder; None makes runs/<preset>-<timestamp>."""
    checkpoint_every: int = 1
    """Iterations between checkpoints."""


def load_config(schema: type[C], source: str | None, overrides: Sequence[str] = ()) -> C:
    """Build `schema` from a preset name or YAML path, then `key=value` overrides in dotted notation.

    A component may be given by its bare name (`policy=openvla-oft`). Where an override swaps a component, the
    source's `args` of the old one are dropped. `${preset_dir}` is the source's folder. Raises `ConfigError`.
    """
    values = _expand_names(schema, _read_source(schema, source) if source else {})
    changes = parse_overrides(overrides, schema)
    _drop_swapped_args(schema, values, changes, "")
    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.merge(values, changes), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or source}: {str(error).splitlines()[0]}") from error
    resolved.pop("preset_dir", None)
    return typed(schema, resolved)


def to_yaml(config: Any) -> str:
    """The resolved config as YAML that `load_config` reads back."""
    return f"kind: {config.kind}\n" + OmegaConf.to_yaml(OmegaConf.structured(config))


def parse_overrides(overrides: Sequence[str], schema: Any = None) -> dict[str, Any]:
    """Nested values of dotted `key=value` strings; the last one wins, and drops what it swaps out. `ConfigError`."""
    merged: Any = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not key or not equals:
            raise ConfigError(f"{override!r} is not an override; write key=value, e.g. loop.iterations=10.")
        _refuse_environment(key, value)
        try:
            values = _expand_names(schema, OmegaConf.to_container(OmegaConf.from_dotlist([override]), resolve=False))
            _drop_swapped_args(schema, merged, values, "")
            merged = OmegaConf.to_container(OmegaConf.merge(merged, values), resolve=False)
        except Exception as error:  # a value is YAML, whose parser raises errors of its own
            raise ConfigError(f"{override!r} cannot be read: {error}") from error
    return merged


def _read_source(schema: Any, source: str) -> dict[str, Any]:
    is_file = source.endswith((".yaml", ".yml")) or Path(source).is_file()
    path = Path(source) if is_file else find_preset(source).path
    try:
        text = path.read_text(encoding="utf-8")
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except FileNotFoundError as error:
        raise ConfigError(f"No config file {source}. `gymnast presets` lists what is installed.") from error
    except Exception as error:
        raise ConfigError(f"{path} is not a usable YAML config: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping at its top level.")
    kind = values.pop("kind", schema.kind if is_file else "train")
    if kind != schema.kind:
        raise ConfigError(f"{source} is a config of `gymnast {kind}`, not of `gymnast {schema.kind}`.")
    _refuse_environment(str(path), text)
    return {"preset_dir": str(path.resolve().parent), **values}


def _refuse_environment(place: str, text: str) -> None:
    # The resolved config is written to the run folder, where a secret must never end up.
    if "${oc.env:" in text:
        raise ConfigError(f"{place}: ${{oc.env:...}} is not for configs; plugins read secrets themselves.")


def _expand_names(schema: Any, values: Any) -> Any:
    """`policy: NAME` means `policy: {name: NAME}`, wherever the schema has a component."""
    is_component = fields_of(schema)[0] is ComponentConfig
    if is_component and isinstance(values, str):
        return {"name": values}
    if is_component or not isinstance(values, dict):
        return values
    return {key: _expand_names(child(schema, str(key)), value) for key, value in values.items()}


def _drop_swapped_args(schema: Any, values: Any, changes: Any, path: str) -> None:
    if not isinstance(values, dict) or not isinstance(changes, dict):
        return
    if fields_of(schema)[0] is not ComponentConfig:
        for key in values.keys() & changes.keys():
            _drop_swapped_args(child(schema, key), values[key], changes[key], f"{path}.{key}".lstrip("."))
        return
    old, new = values.get("name"), changes.get("name")
    if None not in (old, new) and old != new and values.get("args"):
        dropped = ", ".join(values.pop("args"))
        logger.warning("%s is now %r: dropped the arguments meant for %r: %s.", path, new, old, dropped)
