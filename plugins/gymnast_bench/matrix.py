"""The cells of a bench: the product of axes and seeds, without what is excluded."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from gymnast_bench.config import BenchConfig
from gymnast_core.config import ComponentConfig, RunConfig, load_config
from gymnast_core.errors import ConfigError, unknown_name
from gymnast_core.plugins.places import registry_at

SEED = "seed"
_RESERVED = (SEED, "output")


@dataclass(frozen=True)
class Cell:
    """One training of the grid."""

    labels: Mapping[str, str]
    """Axis -> label of its value."""
    seed: int
    base: str
    overrides: tuple[str, ...]
    """In the order in which they apply; the seed's is the last."""

    @property
    def name(self) -> str:
        """The name of its folder: readable, and unique in the grid."""
        key = json.dumps([dict(self.labels), self.seed])
        words = [*self.labels.values(), f"seed-{self.seed}"]
        slug = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", word).strip("-.") for word in words)
        return f"{slug[:80]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"

    @property
    def title(self) -> str:
        """E.g. "grpo, imagination, seed 1"."""
        return ", ".join([*self.labels.values(), f"seed {self.seed}"])

    def arguments(self, run: Path) -> list[str]:
        """What follows `gymnast` to train this cell in the folder `run`."""
        return ["train", self.base, *self.overrides, f"output={run}"]


def command_line(arguments: Sequence[str], threads: int) -> str:
    """The exact command, to be pasted into a shell."""
    return f"OMP_NUM_THREADS={threads} gymnast {shlex.join(arguments)}"


def cells_of(config: BenchConfig) -> list[Cell]:
    """Every cell, in the order of the axes; the last one varies fastest, seeds faster still.

    Raises `ConfigError` for axes, exclusions or overrides that cannot be used, before anything has run.
    """
    axes = {str(name): _values(str(name), values) for name, values in config.axes.items()}
    for name in set(axes) & set(_RESERVED):
        raise ConfigError(f"axes.{name}: that name is taken. " + ("Set seeds=[...]." if name == SEED else "Rename it."))
    excluded = [_pattern(f"exclude[{i}]", pattern, axes) for i, pattern in enumerate(config.exclude)]
    adjusted = [_adjustment(i, rule, axes) for i, rule in enumerate(config.adjust)]
    cells = []
    for labels in itertools.product(*axes.values()):
        for seed in config.seeds:
            place = {**dict(zip(axes, labels, strict=True)), SEED: str(seed)}
            if any(_matches(pattern, place) for pattern in excluded):
                continue
            own = [override for axis, label in zip(axes, labels, strict=True) for override in axes[axis][label]]
            extra = [override for when, overrides in adjusted if _matches(when, place) for override in overrides]
            overrides = (*config.overrides, *own, *extra, f"seed={seed}")
            cells.append(Cell(dict(zip(axes, labels, strict=True)), seed, config.base, overrides))
    if not cells:
        raise ConfigError("The matrix has no cells: exclude leaves nothing. Remove an exclusion.")
    for cell in cells:
        _check(cell)
    return cells


def run_config(cell: Cell) -> RunConfig:
    """What the cell's process will make of its overrides."""
    return _read(cell)[0]


def warnings_of(cells: Sequence[Cell]) -> list[str]:
    """What reading the cells' configs warns of, such as the arguments that a swap of components drops: each distinct
    warning once, with the cells that it is about. The cells' own processes say it in their logs alone."""
    titles: dict[str, list[str]] = {}
    for cell in cells:
        for warning in dict.fromkeys(_read(cell)[1]):
            titles.setdefault(warning, []).append(cell.title)
    return [f"{warning} ({_cells(about)})" for warning, about in titles.items()]


def _cells(titles: Sequence[str]) -> str:
    """ "the cell rloo, seed 1, and 4 more"."""
    return f"the cell {titles[0]}" + (f", and {len(titles) - 1} more" if len(titles) > 1 else "")


def _read(cell: Cell) -> tuple[RunConfig, list[str]]:
    """A cell's config, and the warnings of reading it, which are not logged here: a config is read many times."""
    logger, kept = logging.getLogger(load_config.__module__), _Kept()
    before, logger.propagate = logger.propagate, False
    logger.addHandler(kept)
    try:
        return load_config(RunConfig, cell.base, cell.overrides), kept.warnings
    finally:
        logger.removeHandler(kept)
        logger.propagate = before


class _Kept(logging.Handler):
    """Keeps warnings instead of showing them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.warnings.append(record.getMessage())


def _check(cell: Cell) -> None:
    """A misspelt key must not show after hours."""
    for override in cell.overrides[:-1]:
        if override.partition("=")[0].strip() in _RESERVED:
            raise ConfigError(f"{override!r}: the bench sets that for each cell. Use seeds=[...] and output=FOLDER.")
    try:
        run_config(cell)
    except ConfigError as error:
        raise ConfigError(f"The cell {cell.title} has no usable config: {error}") from error


def check_names(cells: Sequence[Cell]) -> None:
    """Nor must a plugin that is not there. Raises `ConfigError`."""
    for cell in cells:
        for key, part in _parts_of(run_config(cell)):
            registry = registry_at(key)
            if registry is not None and part.name not in registry.names():
                unknown = unknown_name(registry.kind, part.name, registry.names())
                raise ConfigError(f"The cell {cell.title} has no usable config: {key}: {unknown}")


def _parts_of(config: Any, section: str = "") -> Iterator[tuple[str, ComponentConfig]]:
    """The parts of a run and of its evaluation, by their key."""
    for item in fields(config):
        key, value = f"{section}{item.name}", getattr(config, item.name)
        if isinstance(value, ComponentConfig):
            yield key, value
        elif is_dataclass(value):
            yield from _parts_of(value, f"{key}.")


def _values(axis: str, values: Any) -> dict[str, list[str]]:
    """Label -> overrides."""
    if isinstance(values, Sequence) and not isinstance(values, str) and values:
        lists = [_overrides(f"axes.{axis}[{i}]", value) for i, value in enumerate(values)]
        labels = [" ".join(overrides) or "base" for overrides in lists]
        if len(set(labels)) < len(labels):
            raise ConfigError(f"axes.{axis} has a value twice. Give each once.")
        return dict(zip(labels, lists, strict=True))
    if isinstance(values, Mapping) and values:
        return {str(label): _overrides(f"axes.{axis}.{label}", value) for label, value in values.items()}
    raise ConfigError(
        f"axes.{axis} is {values!r}; write {{label: [key=value, ...], ...}} or a list of overrides, e.g. "
        "clipping: {higher: [], equal: [optimizer.args.clip_high=0.2]}."
    )


def _overrides(place: str, value: Any) -> list[str]:
    parts = [value] if isinstance(value, str) else value
    if parts is None:
        return []
    if not isinstance(parts, Sequence) or not all(isinstance(part, str) and "=" in part for part in parts):
        raise ConfigError(f"{place} is {value!r}; write overrides: [key=value, ...] (an empty list is the base).")
    return list(parts)


def _pattern(place: str, pattern: Any, axes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    if not isinstance(pattern, Mapping) or not pattern:
        raise ConfigError(f"{place} is {pattern!r}; write {{axis: label}}, with one axis or more.")
    for axis, label in pattern.items():
        if axis == SEED:
            continue
        if axis not in axes:
            raise ConfigError(f"{place}: {unknown_name('axis', str(axis), [*axes, SEED])}")
        if str(label) not in axes[axis]:
            raise ConfigError(f"{place}: {unknown_name(f'value of {axis}', str(label), axes[axis])}")
    return {str(axis): str(label) for axis, label in pattern.items()}


def _adjustment(index: int, rule: Any, axes: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, str], list[str]]:
    if not isinstance(rule, Mapping) or set(rule) != {"when", "overrides"}:
        raise ConfigError(f"adjust[{index}] is {rule!r}; write {{when: {{axis: label}}, overrides: [key=value, ...]}}.")
    when = _pattern(f"adjust[{index}].when", rule["when"], axes)
    return when, _overrides(f"adjust[{index}].overrides", rule["overrides"])


def _matches(pattern: Mapping[str, str], place: Mapping[str, str]) -> bool:
    return all(place[axis] == label for axis, label in pattern.items())
