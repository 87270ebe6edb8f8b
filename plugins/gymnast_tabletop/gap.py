"""How a tabletop differs from the standard one: the distance between a simulator and the robot it stands for."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

from gymnast_core.config.ranges import Range, check_values
from gymnast_core.errors import ConfigError, unknown_name

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Gap:
    """Camera, colours and friction of a table. The defaults are the standard table, bit for bit."""

    camera_shift: list[Annotated[float, Range(least=-0.1, most=0.1)]] = field(default_factory=lambda: [0.0, 0.0])
    """Metres by which the camera stands to the right and to the top, each in ±0.1."""
    camera_zoom: Annotated[float, Range(least=0.5, most=2)] = 1.0
    """Factor on the size of things in the image, 0.5 to 2."""
    hue: Annotated[float, Range(least=-180, most=180)] = 0.0
    """Degrees by which the blocks' colours are turned, from red by yellow to green; ±180."""
    brightness: Annotated[float, Range(least=0.2, most=2)] = 1.0
    """Factor on all colours, 0.2 to 2."""
    friction: Annotated[float, Range(least=0.01, most=10)] = 1.0
    """Factor on the friction of the blocks, 0.01 to 10; below about 0.2 they slide on after a push."""

    def __post_init__(self) -> None:
        if len(self.camera_shift) != 2:
            raise ConfigError(f"gap.camera_shift is {list(self.camera_shift)}; give [x, y], metres.")
        check_values(type(self), asdict(self), "gap")

    def changes(self) -> dict[str, Any]:
        """The fields that are not standard."""
        return {name: value for name, value in asdict(self).items() if value != getattr(STANDARD, name)}

    def colour(self, rgb: RGB) -> RGB:
        """A block's colour, each part in [0, 1], as it is on this table in standard light."""
        if self.hue == 0.0:
            return rgb
        hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
        return colorsys.hsv_to_rgb((hue + self.hue / 360.0) % 1.0, saturation, value)


STANDARD = Gap()


def read_gap(values: Gap | Mapping[str, Any] | None) -> Gap:
    """A gap from plain values, as `gymnasium.make` hands them on. Raises `ConfigError` for unknown keys."""
    if isinstance(values, Gap):
        return values
    known = [item.name for item in fields(Gap)]
    for key in values or {}:
        if key not in known:
            raise ConfigError(f"gap: {unknown_name('key', str(key), known)}")
    return Gap(**(values or {}))
