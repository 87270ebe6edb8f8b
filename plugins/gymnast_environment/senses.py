"""What an environment shows: its cameras' images and its proprioceptive readings, out of its observations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

import gymnasium
import numpy as np

from gymnast_core.errors import DataError


@dataclass(frozen=True)
class Sensed:
    """What was shown at one moment."""

    frames_VHWC: np.ndarray
    """uint8 RGB."""
    proprio_P: np.ndarray | None
    """float32 readings."""


@dataclass(frozen=True)
class Senses:
    """Where images and readings are found."""

    image_key: str
    """Of the image, where there is one camera."""
    cameras: tuple[str, ...]
    """Keys of the images, where there are several; empty for one."""
    proprio_key: str | None
    proprio_dim: int | None

    def read(self, environment: gymnasium.Env, observation: object) -> Sensed:
        """Copies: some environments reuse their buffers. Raises `DataError` for what is missing or of a wrong shape."""
        if self.cameras:
            images = [self._camera(environment, observation, name) for name in self.cameras]
            if len({image.shape for image in images}) > 1:
                sizes = {name: image.shape[:2] for name, image in zip(self.cameras, images, strict=True)}
                raise DataError(f"The cameras of {_name(environment)} show pictures of different sizes: {sizes}.")
            frames_VHWC = np.stack(images)
        else:
            frames_VHWC = self._only_image(environment, observation)[None]
        return Sensed(frames_VHWC, self._proprio(environment, observation))

    def _camera(self, environment: gymnasium.Env, observation: object, name: str) -> np.ndarray:
        image = observation.get(name) if isinstance(observation, dict) else None
        if not _is_image(image):
            found = ", ".join(map(str, observation)) if isinstance(observation, dict) else type(observation).__name__
            raise DataError(
                f"Environment {_name(environment)} gave no uint8 RGB image under the key {name!r}; its observation has "
                f"{found}. Set world_model.args.cameras to keys of images."
            )
        return image[..., :3].copy()

    def _only_image(self, environment: gymnasium.Env, observation: object) -> np.ndarray:
        if isinstance(observation, dict):
            observation = observation.get(self.image_key)
        for candidate in (observation, None):
            image = candidate if candidate is not None else environment.render()
            if _is_image(image):
                return image[..., :3].copy()
        raise DataError(
            f"Environment {_name(environment)} gave no uint8 RGB image: not as observation, not under the "
            f"key {self.image_key!r}, not from render(). Set world_model.args.image_key, or give the "
            "task's environment the argument render_mode: rgb_array."
        )

    def _proprio(self, environment: gymnasium.Env, observation: object) -> np.ndarray | None:
        if self.proprio_key is None:
            return None
        readings = observation.get(self.proprio_key) if isinstance(observation, dict) else None
        found = None if readings is None else np.asarray(readings, dtype=np.float32).reshape(-1)
        if found is None or found.shape != (self.proprio_dim,):
            shape = "nothing" if found is None else f"{len(found)} numbers"
            raise DataError(
                f"Environment {_name(environment)} gave {shape} under the key {self.proprio_key!r}; expected "
                f"{self.proprio_dim} readings. Set world_model.args.proprio_key and proprio_dim."
            )
        return found.copy()


def _is_image(image: object) -> TypeGuard[np.ndarray]:
    return isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3


def _name(environment: gymnasium.Env) -> str:
    return environment.spec.id if environment.spec is not None else type(environment.unwrapped).__name__
