"""How an environment is looked at: the section `view` of every config that needs one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from gymnast_core.config.ranges import Choices, Count, Range
from gymnast_core.errors import ConfigError


@dataclass(frozen=True)
class View:
    """What of an environment becomes pictures, readings, instruction and success.

    Keys of nested dictionaries are written with dots: "sensor_data.base_camera.rgb". Torch tensors and batches of one
    episode are unwrapped.
    """

    cameras: dict[str, str] = field(default_factory=dict)
    """The cameras by name, each with the key of its picture in the observation, the main camera first:
    {front: image, wrist: image_wrist}. Empty: one picture, under `image_key`, whatever the task calls it."""
    image_key: str = "image"
    """Key of the one picture where `cameras` is empty; where there is none, the observation itself, or `render()`."""
    flip: Annotated[str, Choices("none", "vertical", "horizontal", "both")] = "none"
    """Turns pictures upside down ("vertical"), mirrors them ("horizontal"), or both."""
    rotate: Annotated[int, Range(least=0, most=270)] = 0
    """Then rotates them counter-clockwise, degrees: 0, 90, 180 or 270."""
    size: Count | None = None
    """Then resizes them to a square of that many pixels, with antialiasing; null: as they are."""
    proprio: list[str] = field(default_factory=list)
    """Keys of proprioceptive readings in the observation, put one after another; empty: none are read."""
    proprio_dim: Count | None = None
    """How many numbers those are together; a world model must know it before it makes an environment."""
    action_repeat: Count = 1
    """Steps of the environment for which each action is held; what is shown after the last of them counts."""
    instruction_key: str | None = None
    """Key of the instruction in the observation or in `info`, or the name of an attribute or method of the
    environment; null: it gives none."""
    success_key: str = "success"
    """Key in `info` of success in [0, 1]."""
    success: Annotated[str, Choices("end", "any")] = "end"
    """"end": success is what the environment said last. "any": the most that it said at any step so far."""
    stop_on_success: bool = False
    """End an episode with its first success of 1; what it shows then stays."""
    outcomes_key: str | None = None
    """Key in `info` of a dictionary from other instructions to whether they are fulfilled; null: there is none."""

    def __post_init__(self) -> None:
        if self.rotate % 90:
            raise ConfigError(f"view.rotate is {self.rotate}; it must be 0, 90, 180 or 270 degrees.")
        if self.proprio_dim is not None and not self.proprio:
            raise ConfigError(
                f"view.proprio_dim is {self.proprio_dim}, and view.proprio names no keys: give both, the keys of the "
                "readings and how many there are, or neither."
            )

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras' names; none where there is one, called whatever the task calls it."""
        return tuple(self.cameras)

    def told(self) -> dict[str, Any]:
        """As plain values, for another process."""
        return asdict(self)
