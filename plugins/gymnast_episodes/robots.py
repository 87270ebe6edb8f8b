"""Robots' action spaces (`robots.yaml`): between robot units and the units that WorldGym models were trained in.

>>> bridge = robot("bridge")
>>> bridge.to_model(torch.tensor([0.01, 0, 0, 0, 0, 0, 1.0]))  # metres, radians, gripper open
tensor([ 0.3500,  0.0000,  0.0000,  0.0000,  0.0000,  0.0000, -1.0000])

Model actions have ten columns: position 3, rotation 3, gripper, base displacement 2, base yaw. A robot's actions
are the first `width` of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import torch
import yaml
from torch import Tensor

from gymnast_core.errors import ConfigError, DataError, unknown_name

GRIPPER = 6
"""Column of the gripper."""
ROUNDING = 1e-5
"""How far recorded model units may lie outside the clip, as float32 files do."""


@dataclass(frozen=True)
class Robot:
    """One robot's action space. Lists run over the first columns; columns beyond them pass unchanged."""

    name: str
    width: int
    """Columns of the robot's actions."""
    scale: tuple[float, ...] = ()
    """Model units per robot unit."""
    offset: tuple[float, ...] = ()
    """Model units, added after scaling."""
    clip: tuple[float, ...] = ()
    """Bound of the absolute value, model units; infinite where there is none."""
    range: tuple[float, ...] = ()
    """Largest absolute value, robot units: what a policy that acts in -1..1 spans. Empty: not known."""
    open_above: float | None = None
    """Gripper commands above this open it (-1 in model units), others close it (+1). None: unchanged."""

    def to_model(self, actions: Tensor) -> Tensor:
        """(..., width or more) in robot units to float32 of the same shape, model units."""
        actions = actions.float()
        columns = actions.shape[-1]
        scaled = actions * self._row("scale", 1.0, actions) + self._row("offset", 0.0, actions)
        clip = self._row("clip", math.inf, actions)
        scaled = torch.minimum(torch.maximum(scaled, -clip), clip)
        if self.open_above is None or columns <= GRIPPER:
            return scaled
        opened = actions[..., GRIPPER] > torch.tensor(self.open_above, device=actions.device)
        scaled[..., GRIPPER] = torch.where(opened, -1.0, 1.0)
        return scaled

    def from_model(self, actions: Tensor) -> Tensor:
        """(..., width or more) in model units to float32 (..., width) in robot units: the inverse of `to_model`.

        `to_model(from_model(x))` is `x` up to float32 rounding; for a gripper rule this holds at -1 and +1, between
        them the command is linear. Raises `DataError` where no action of this robot gives these model units: too
        narrow, beyond the clip, or motion in columns that the robot does not have.
        """
        actions = actions.float()
        self._check_recorded(actions)
        actions = actions[..., : self.width]
        robot = (actions - self._row("offset", 0.0, actions)) / self._row("scale", 1.0, actions)
        if self.open_above is not None:
            robot[..., GRIPPER] = (1 - actions[..., GRIPPER]) / 2
        return robot

    def unit_range(self) -> Robot:
        """The same robot for policies whose positions and rotations span -1..1. Raises `ConfigError`."""
        if not self.range:
            raise ConfigError(f"No range is known for robot {self.name!r}: its policies must act in its own units.")
        scale = tuple(scale * limit for scale, limit in zip(self.scale, self.range, strict=True))
        return replace(self, scale=scale, range=(1.0,) * len(scale))

    def _check_recorded(self, actions: Tensor) -> None:
        columns = actions.shape[-1]
        if columns < self.width:
            raise DataError(f"Robot {self.name!r} has actions of width {self.width}, the recorded ones have {columns}.")
        if (actions[..., self.width :] != 0).any():
            raise DataError(
                f"The recorded actions move columns beyond the {self.width} of robot {self.name!r}. "
                f"Choose another robot: {', '.join(names())}; or null for the recorded numbers."
            )
        beyond = actions.abs() > self._row("clip", math.inf, actions) + ROUNDING
        if beyond.any():
            column = int(beyond.flatten(0, -2).any(0).nonzero()[0])
            raise DataError(
                f"Column {column + 1} of the recorded actions reaches {actions[..., column].abs().max():.3g}; robot "
                f"{self.name!r} ends at {self.clip[column]:g}. Are these model units of another robot?"
            )

    def _row(self, name: str, default: float, like: Tensor) -> Tensor:
        values = getattr(self, name)[: like.shape[-1]]
        return torch.tensor([*values, *[default] * (like.shape[-1] - len(values))], device=like.device)


@cache
def _robots() -> dict[str, Robot]:
    text = resources.files(__package__).joinpath("robots.yaml").read_text(encoding="utf-8")
    return {name: _robot(name, fields) for name, fields in yaml.safe_load(text).items()}


def _robot(name: str, fields: dict[str, Any]) -> Robot:
    """z-scores become scale and offset."""
    mean, std = fields.pop("mean", []), fields.pop("std", [])
    if std:
        fields["scale"] = [1 / s for s in std]
        fields["offset"] = [-m / s for m, s in zip(mean, std, strict=True)]
    fields["clip"] = [math.inf if bound is None else bound for bound in fields.get("clip", [])]
    rows: dict[str, Any] = {key: tuple(row) if isinstance(row, list) else row for key, row in fields.items()}
    return Robot(name, **rows)


def names() -> list[str]:
    """Known robots, sorted."""
    return sorted(_robots())


def robot(name: str) -> Robot:
    """The robot of that name. Raises `ConfigError` that lists the known ones."""
    try:
        return _robots()[name]
    except KeyError:
        raise ConfigError(unknown_name("robot", name, names())) from None
