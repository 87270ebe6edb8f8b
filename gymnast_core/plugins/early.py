"""What of a config can be known to be wrong before anything is loaded: for one error that lists everything."""

from collections.abc import Iterator, Mapping
from typing import Any

from gymnast_core.config.problems import Problems
from gymnast_core.config.schema import ComponentConfig, RunConfig
from gymnast_core.config.typed import checked, child, fields_of
from gymnast_core.errors import ConfigError, GymnastError, PluginError
from gymnast_core.plugins.hooks import check_sections
from gymnast_core.plugins.places import registry_at
from gymnast_core.plugins.registry import registries


def check_early(schema: Any, values: Mapping[str, Any], problems: Problems) -> None:
    """Components that do not exist or are told what they do not know, hook sections, `trainer`, and what of a
    training's parts does not fit together. `values` are those of the dataclass `schema`, over its defaults.

    A schema may say which sections of it are configs of other commands: `sections: ClassVar[dict[str, type]]`.
    """
    _check_components(schema, values, "", problems)
    with problems.collected():
        check_sections({name: part for name, part in (values.get("hooks") or {}).items() if isinstance(part, dict)})
    trainer = values.get("trainer")
    if isinstance(trainer, dict) and trainer:
        from gymnast_core.training.trainer import refused_options

        for error in refused_options(trainer, shards=getattr(schema, "shards", False)):
            problems.add(error)
    _check_horizon(values, problems)
    if isinstance(schema, type) and issubclass(schema, RunConfig):
        _check_training(values, problems)
    _check_other_commands(schema, values, problems)


def _check_components(schema: Any, values: Any, path: str, problems: Problems) -> None:
    """Every component in these values, and those that their arguments name."""
    if fields_of(schema)[0] is ComponentConfig:
        if isinstance(values, Mapping):
            _check_component(values, path, problems)
        return
    if isinstance(values, Mapping):
        for name, value in values.items():
            _check_components(child(schema, str(name)), value, f"{path}.{name}".lstrip("."), problems)
    elif isinstance(values, list):
        from gymnast_core.config.ranges import element

        for i, value in enumerate(values):
            _check_components(element(schema), value, f"{path}[{i}]", problems)


def _check_component(part: Mapping[str, Any], path: str, problems: Problems) -> None:
    registry, name = registry_at(path), part.get("name")
    if registry is None or not isinstance(name, str) or name == "???":
        return
    if name not in registry.names():
        problems.add(PluginError(f"{path}: {registry.unknown(name)}"), path)
        return
    try:
        cls: Any = registry.load(name)
    except GymnastError as error:
        problems.add(error, path)
        return
    args = part.get("args")
    if isinstance(args, Mapping):
        before = len(problems.found)
        _, known_args = checked(cls.Config, args, problems, f"{path}.args")
        if len(problems.found) > before:
            problems.lost.add(path)
        _check_components(cls.Config, known_args, f"{path}.args", problems)


def _check_horizon(values: Mapping[str, Any], problems: Problems) -> None:
    """Horizons that are no multiple of a policy's chunks, where the policy's arguments say how long they are."""
    for key in ("horizon", "loop.horizon", "evaluation.horizon"):
        section, _, name = key.rpartition(".")
        inside = values.get(section) if section else values
        horizon = inside.get(name) if isinstance(inside, Mapping) else None
        if isinstance(horizon, int) and not problems.spoil(key):
            _check_multiple(key, horizon, values, problems)


def _check_multiple(key: str, horizon: int, values: Mapping[str, Any], problems: Problems) -> None:
    for path, part in _policies(values):
        length = (part.get("args") or {}).get("chunk_length")
        if not isinstance(length, int) or length < 1 or problems.spoil(path) or not horizon % length:
            continue
        problems.add(
            ConfigError(
                f"{key} is {horizon}, no multiple of the chunk length {length} of {path} {part['name']!r}; set "
                f"{key}={horizon // length * length or length}."
            )
        )


def _policies(values: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    single, several = values.get("policy"), values.get("policies")
    if isinstance(single, Mapping):
        yield "policy", single
    for label, part in several.items() if isinstance(several, Mapping) else ():
        if isinstance(part, Mapping):
            yield f"policies.{label}", part


def _check_training(values: Mapping[str, Any], problems: Problems) -> None:
    """What the optimizer, which is cheap to build, needs of the rest."""
    from gymnast_core.rollouts.deal import check_deal

    part, loop = values.get("optimizer"), values.get("loop")
    if not isinstance(part, Mapping) or any(map(problems.spoil, ("optimizer", "loop"))):
        return
    if part.get("name") not in registries().optimizers.names() or not isinstance(loop, Mapping):
        return
    with problems.collected("optimizer"):
        optimizer = registries().optimizers.build(part["name"], part.get("args"), key="optimizer")
        count = _processes(values.get("trainer") or {})
        with problems.collected():
            check_deal(loop["tasks_per_iteration"], optimizer.group_size, loop["imagine_batch_size"], count)
        if optimizer.demonstrations_per_rollout and values.get("demonstrations") is None:
            raise needs_demonstrations(part["name"])


def needs_demonstrations(optimizer: str) -> ConfigError:
    """The error of an optimizer that imitates, in a config that names nothing to imitate."""
    return ConfigError(f"The optimizer {optimizer!r} mixes in demonstrations; set demonstrations.name and .args.")


def _processes(trainer: Mapping[str, Any]) -> int:
    """How many processes a trainer's options ask for; 1 where they leave it to the machine."""
    numbers = [trainer.get(key, 1) for key in ("devices", "num_nodes")]
    return numbers[0] * numbers[1] if all(isinstance(number, int) and number > 0 for number in numbers) else 1


def _check_other_commands(schema: Any, values: Mapping[str, Any], problems: Problems) -> None:
    """Sections that are configs of other commands, where what the command adds to them is missing still."""
    for section, other in getattr(schema, "sections", {}).items():
        part: Any = values
        for name in section.split("."):
            part = part.get(name) if isinstance(part, Mapping) else None
        if not isinstance(part, Mapping):
            continue
        from gymnast_core.config.load import expand_names

        inside = Problems()
        inside.is_partial = True
        _, known = checked(other, expand_names(other, dict(part)), inside, section)
        _check_components(other, known, section, inside)
        for error in inside.found:
            problems.add(error, section)
