"""What an environment shows, as the project sees it: its cameras, readings, instruction and success."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .faults import Refused
from .keys import MISSING, array, find, leaves, number, text
from .pictures import resized, turned


@dataclass(frozen=True)
class Sensed:
    """What an environment shows at one moment."""

    frames_VHWC: np.ndarray
    """uint8 RGB."""
    proprio_P: np.ndarray | None = None
    """float32 readings, if the view names some."""
    instruction: str | None = None
    """What the environment asks for, if the view says where it stands."""
    outcome: float | None = None
    """Success in [0, 1]: the latest that is known, or the largest, as the view wants it; None if nothing is known."""
    outcomes: Mapping[str, bool] = field(default_factory=dict)
    """What is known of other instructions: instruction -> fulfilled."""
    ended: bool = False
    """Terminated, truncated, or stopped by success: the environment takes no more actions."""


class Eye:
    """Looks at one environment as a `View` says; `view` holds its fields as plain values."""

    def __init__(self, view: Mapping[str, Any]) -> None:
        self.view = view

    def start(self, environment: Any, observation: Any, info: Mapping[str, Any]) -> Sensed:
        """What is shown after a reset."""
        return self.look(environment, observation, info, None, False)

    def look(
        self, environment: Any, observation: Any, info: Mapping[str, Any], before: Sensed | None, ended: bool
    ) -> Sensed:
        """What is shown after a step; copies, since some environments reuse their buffers. Raises `Refused`."""
        outcome = self._outcome(info, None if before is None else before.outcome)
        if self.view["stop_on_success"] and outcome is not None and outcome >= 1.0:
            ended = True
        return Sensed(
            self._frames(environment, observation),
            self._proprio(environment, observation),
            self._instruction(environment, observation, info),
            outcome,
            self._outcomes(info, {} if before is None else before.outcomes),
            ended,
        )

    def _frames(self, environment: Any, observation: Any) -> np.ndarray:
        cameras: Mapping[str, str] = self.view["cameras"]
        if not cameras:
            return self._fitted(self._only_image(environment, observation))[None]
        images = {name: self._fitted(self._camera(environment, observation, key)) for name, key in cameras.items()}
        sizes = {name: image.shape[:2] for name, image in images.items()}
        if len(set(sizes.values())) > 1:
            raise Refused(
                "view",
                f"The cameras of {name_of(environment)} show pictures of different sizes: {sizes}. Set view.size to a "
                "number of pixels for all of them.",
            )
        return np.stack(list(images.values()))

    def _camera(self, environment: Any, observation: Any, key: str) -> np.ndarray:
        image = _image(find(observation, key))
        if image is None:
            raise Refused(
                "view",
                f"Environment {name_of(environment)} gave no uint8 RGB image under the key {key!r}; its observation "
                f"has {shown_keys(observation)}. Set view.cameras to keys of images.",
            )
        return image

    def _only_image(self, environment: Any, observation: Any) -> np.ndarray:
        key = self.view["image_key"]
        image = _image(find(observation, key) if isinstance(observation, Mapping) else observation)
        if image is None:
            image = _image(environment.render())
        if image is None:
            raise Refused(
                "view",
                f"Environment {name_of(environment)} gave no uint8 RGB image: not as observation, not under the key "
                f"{key!r} (it has {shown_keys(observation)}), not from render(). Set view.image_key, or give the "
                "task's environment the argument render_mode: rgb_array.",
            )
        return image

    def _fitted(self, image_HWC: np.ndarray) -> np.ndarray:
        image_HWC = turned(image_HWC[..., :3], self.view["flip"], self.view["rotate"])
        size = self.view["size"]
        return np.array(image_HWC if size is None else resized(image_HWC, size), order="C")

    def _proprio(self, environment: Any, observation: Any) -> np.ndarray | None:
        keys = self.view["proprio"]
        if not keys:
            return None
        pieces = []
        for key in keys:
            found = find(observation, key)
            try:
                pieces.append(np.array(array(found), dtype=np.float32).reshape(-1))
            except (TypeError, ValueError):
                raise Refused(
                    "view",
                    f"Environment {name_of(environment)} gave no readings under the key {key!r}; its observation has "
                    f"{shown_keys(observation)}. Set view.proprio.",
                ) from None
        readings = np.concatenate(pieces)
        expected = self.view["proprio_dim"]
        if expected is not None and len(readings) != expected:
            raise Refused(
                "view",
                f"Environment {name_of(environment)} gave {len(readings)} numbers under {', '.join(keys)}; expected "
                f"{expected} readings. Set view.proprio and view.proprio_dim.",
            )
        return readings

    def _instruction(self, environment: Any, observation: Any, info: Mapping[str, Any]) -> str | None:
        key = self.view["instruction_key"]
        if key is None:
            return None
        for found in (find(observation, key), find(info, key), _attribute(environment, key)):
            if found is not MISSING and (instruction := text(found)) is not None:
                return instruction
        raise Refused(
            "view",
            f"Environment {name_of(environment)} gave no instruction under {key!r}: not in its observation "
            f"({shown_keys(observation)}), not in info ({shown_keys(info)}), not as an attribute. Set "
            "view.instruction_key.",
        )

    def _outcome(self, info: Mapping[str, Any], before: float | None) -> float | None:
        found = find(info, self.view["success_key"])
        value = None if found is MISSING else number(found)
        if value is None or value != value:  # not a number
            return before
        value = min(max(value, 0.0), 1.0)
        return value if before is None or self.view["success"] == "end" else max(value, before)

    def _outcomes(self, info: Mapping[str, Any], before: Mapping[str, bool]) -> Mapping[str, bool]:
        key = self.view["outcomes_key"]
        found = MISSING if key is None else find(info, key)
        if not isinstance(found, Mapping):
            return before
        reached = self.view["success"] == "any"
        now = {str(name): bool(number(value)) for name, value in found.items()}
        return {**before, **{name: value or (reached and before.get(name, False)) for name, value in now.items()}}


def name_of(environment: Any) -> str:
    """What an environment is called in an error."""
    spec = getattr(environment, "spec", None)
    return spec.id if spec is not None else type(environment.unwrapped).__name__


def shown_keys(tree: Any) -> str:
    """The dotted keys of what an environment returned, for an error."""
    if not isinstance(tree, Mapping):
        return f"no keys: it is {_kind(tree)}"
    return ", ".join(f"{key} ({_kind(value)})" for key, value in leaves(tree)) or "no keys"


def _kind(value: Any) -> str:
    value = array(value)
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _image(value: Any) -> np.ndarray | None:
    """A uint8 picture (H, W, 3 or 4), also out of a list or batch of one; None if it is something else."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    value = array(value)
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
        return None
    if value.ndim == 4 and value.shape[0] == 1:
        value = value[0]
    return value if value.ndim == 3 and value.shape[2] in (3, 4) and value.size else None


def _attribute(environment: Any, key: str) -> Any:
    """An attribute of the environment itself, called if it is a method."""
    found = environment.unwrapped
    for name in key.split("."):
        found = getattr(found, name, MISSING)
        if found is MISSING:
            return MISSING
    return found() if callable(found) else found
