"""A policy as a service: one decision at a time, in a thread of its own, for observations of strangers."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnast_core.errors import ConfigError, unknown_name
from gymnast_core.interfaces import Policy
from gymnast_core.types import ONE_CAMERA, Needs, Observation

IMAGE_KEYS = ("image", "full_image", "observation/image")
"""Where the main camera's image is looked for: OpenVLA, OpenVLA-OFT, openpi's LIBERO policies."""
FURTHER_KEYS = ("{}", "{}_image", "observation/{}", "observation/{}_image")
"""Where that of a further camera is looked for, by its name: OpenVLA-OFT ("left_wrist_image"), openpi."""
STATE_KEYS = ("state", "observation/state")
"""Where the proprioceptive state is looked for, if the policy reads one."""
INSTRUCTION_KEYS = ("instruction", "prompt")
UNNORM_KEY = "unnorm_key"
ON_EXTRA = ("refuse", "warn")
MAX_INSTRUCTION = 2_000
"""Characters."""
MAX_TOLD = 100
"""Different sets of unread parts that are logged, each once."""

logger = logging.getLogger(__name__)


class BadObservation(Exception):
    """A message that is readable but no observation for this policy."""


class Busy(Exception):
    """Too many wait already."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The server is busy. Try again in {retry_after} s.")
        self.retry_after = retry_after
        """Seconds until there may be room."""


@dataclass(frozen=True)
class ServiceConfig:
    """How a policy decides for clients."""

    name: str
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy."""
    seed: int = 0
    """Of the sampling, all clients together."""
    image_keys: tuple[str, ...] = ()
    """Key of each camera's image, in the policy's order; a dot nests. Empty looks for the main one under `IMAGE_KEYS`,
    for the others under `FURTHER_KEYS`."""
    state_key: str | None = None
    """Key of the proprioceptive state; None looks under `STATE_KEYS`, if the policy reads one."""
    queue: int = 16
    """Requests that may wait while one is decided."""
    on_extra: str = "refuse"
    """What is done about parts of a request that the policy does not take (a wrist image, a state): "refuse" it, or
    "warn": leave them out, log them, and name them in the answer."""


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    observation: Observation
    """What the policy sees of it, B = 1."""
    ignored: tuple[str, ...] = ()
    """Keys of what it does not see."""


class PolicyService:
    """Reads observations, and has the policy decide them one after another.

    Raises `ConfigError` if the policy needs what cannot be sent, or if the keys are not those of what it needs.
    """

    def __init__(self, policy: Policy, config: ServiceConfig, device: torch.device | str = "cpu") -> None:
        if config.on_extra not in ON_EXTRA:
            raise ConfigError(unknown_name("reaction to unread parts (on_extra)", config.on_extra, ON_EXTRA))
        self.policy, self.config, self.device = policy.eval().to(device), config, device
        self._needs = policy.needed
        self._image_keys, self._state_keys = _image_keys(config, self._needs), _state_keys(config, self._needs)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="gymnast-serve")
        self._lock, self._unfinished, self._seconds = threading.Lock(), 0, 1.0
        self._told: set[tuple[str, ...]] = set()

    @property
    def description(self) -> dict[str, Any]:
        """What openpi clients are told when they connect."""
        policy, needs = self.policy, self._needs
        cameras = list(needs.cameras) if isinstance(needs.cameras, tuple) else None
        return {
            "server": "gymnast serve", "policy": self.config.name, "chunk_length": policy.chunk_length,
            "action_dim": policy.action_dim, "cameras": cameras, "image_keys": [keys[-1] for keys in self._image_keys],
            "state_key": self._state_keys[-1] if self._state_keys else None, "state_width": needs.proprio,
            "on_extra": self.config.on_extra,
        }  # fmt: skip

    def read(self, payload: Any) -> Request:
        """The observation in a decoded message. Raises `BadObservation` for one that lacks what the policy needs, or
        holds what it does not take, as `on_extra` says."""
        if not isinstance(payload, Mapping):
            raise BadObservation(f"An observation is a mapping with an image and an instruction, not {_kind(payload)}.")
        keys = [_first(payload, known, self._image_of(i)) for i, known in enumerate(self._image_keys)]
        images = [_image(payload, key) for key in keys]
        if len({image.shape for image in images}) > 1:
            raise BadObservation(f"The images {', '.join(keys)} differ in size; send them in one size.")
        key = _first(payload, INSTRUCTION_KEYS, "instruction")
        instruction = payload[key]
        if not (isinstance(instruction, str) and len(instruction) <= MAX_INSTRUCTION and _is_unicode(instruction)):
            raise BadObservation(f"{key!r} must be text of at most {MAX_INSTRUCTION} characters.")
        self._check_unnorm_key(payload.get(UNNORM_KEY))
        state_key, state = self._state(payload)
        used = {*keys, key, UNNORM_KEY} | ({state_key} if state_key else set())
        ignored = self._extra(payload, used)
        images_BTVHWC = torch.from_numpy(np.stack(images)[None, None])
        cameras = self._needs.cameras
        if isinstance(cameras, int):
            cameras = ONE_CAMERA if cameras == 1 else tuple(keys)
        return Request(Observation(images_BTVHWC, (instruction,), cameras, state), ignored)

    async def decide(self, observation: Observation, *, patient: bool = False) -> np.ndarray:
        """The policy's chunk, float32 (L, A) in robot units. Raises `Busy` (unless patient) and what the policy raises.

        Cancelling it takes the observation out of the queue if its turn has not come.
        """
        with self._lock:
            if not patient and self._unfinished > self.config.queue:
                raise Busy(max(1, min(60, math.ceil(self._seconds * self._unfinished))))
            self._unfinished += 1
        job = self._worker.submit(self._act, observation)
        job.add_done_callback(self._finished)
        return await asyncio.wrap_future(job)

    def close(self) -> None:
        """Wait for the decision in progress; forget the others."""
        self._worker.shutdown(cancel_futures=True)

    def _act(self, observation: Observation) -> np.ndarray:
        began = time.monotonic()
        seen = observation.to(self.device)
        chunk = self.policy.act(seen, temperature=self.config.temperature, generator=self._generator)
        self._seconds = time.monotonic() - began
        return chunk.actions_BLA[0].float().cpu().numpy()

    def _finished(self, job: Future[np.ndarray]) -> None:
        with self._lock:
            self._unfinished -= 1

    def _check_unnorm_key(self, wanted: Any) -> None:
        ours = getattr(self.policy, "unnorm_key", None)
        if wanted is not None and ours is not None and wanted != ours:
            raise BadObservation(f"This server's actions have the statistics of {ours!r}; leave unnorm_key out.")

    def _image_of(self, index: int) -> str:
        """What an image is called that is lacking."""
        cameras = self._needs.cameras
        return f"image of the camera {cameras[index]!r}" if isinstance(cameras, tuple) and index else "image"

    def _extra(self, payload: Mapping[Any, Any], used: set[str]) -> tuple[str, ...]:
        """Keys of what the policy does not take; logged, or refused."""
        extra = tuple(sorted(_unread(payload, used)))
        if not extra:
            return ()
        said = f"{_listed(extra)}: the policy {self.config.name!r} takes {_listed(sorted(used - {UNNORM_KEY}))} alone"
        if self.config.on_extra == "refuse":
            raise BadObservation(
                f"You sent what is not read, {said}. Leave it out, or start the server with --on-extra warn; serve a "
                "policy that takes it if it matters."
            )
        if extra not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(extra)
            logger.warning("A client sends what is not read, %s.", said)
        return extra

    def _state(self, payload: Mapping[Any, Any]) -> tuple[str | None, torch.Tensor | None]:
        """The key of the state, and its numbers, (1, 1, P); None where the policy reads none."""
        if not self._state_keys:
            return None, None
        width = self._needs.proprio
        key = _first(payload, self._state_keys, f"state, of which the policy reads {width} numbers")
        state = _find(payload, key)
        try:
            state_P = np.asarray(state, np.float32) if isinstance(state, np.ndarray | list) else np.empty(())
        except (TypeError, ValueError, OverflowError):
            state_P = np.empty(())
        if state_P.ndim != 1 or not np.isfinite(state_P).all():
            raise BadObservation(f"{key!r} must be a vector of finite numbers.")
        if len(state_P) != width:
            raise BadObservation(f"{key!r} has {len(state_P)} numbers; the policy reads {width}.")
        return key, torch.from_numpy(state_P.copy())[None, None]


def _image_keys(config: ServiceConfig, needs: Needs) -> list[tuple[str, ...]]:
    """Where the image of each camera is looked for."""
    count = needs.camera_count
    if needs.history > 1:
        raise ConfigError(
            f"The policy {config.name!r} needs {needs.history} frames at each decision, and clients of these protocols "
            "send the current one alone: it cannot be served."
        )
    if config.image_keys:
        if len(config.image_keys) != count:
            raise ConfigError(
                f"The policy {config.name!r} is shown {count} cameras, and --image-key names {len(config.image_keys)}: "
                "repeat it, once a camera, in the policy's order."
            )
        return [(key,) for key in config.image_keys]
    if isinstance(needs.cameras, int):
        if count > 1:
            raise ConfigError(
                f"The policy {config.name!r} is shown {count} cameras and does not name them. Say under which keys "
                "their images come: --image-key KEY, once a camera, in the policy's order."
            )
        return [IMAGE_KEYS]
    further = [tuple(form.format(camera) for form in FURTHER_KEYS) for camera in needs.cameras[1:]]
    return [IMAGE_KEYS, *further]


def _state_keys(config: ServiceConfig, needs: Needs) -> tuple[str, ...]:
    """Where the state is looked for; nowhere if the policy reads none."""
    if needs.proprio is None:
        if config.state_key is not None:
            raise ConfigError(f"The policy {config.name!r} reads no state: leave --state-key out.")
        return ()
    return STATE_KEYS if config.state_key is None else (config.state_key,)


def _first(payload: Mapping[Any, Any], keys: Sequence[str], what: str) -> str:
    for key in keys:
        if _find(payload, key) is not None:
            return key
    sent = ", ".join(sorted(map(str, payload)))[:200] or "nothing"
    raise BadObservation(f"There is no {what}: send it as {' or '.join(map(repr, keys))}. You sent {sent}.")


def _unread(payload: Mapping[Any, Any], used: set[str], path: str = "") -> Iterator[str]:
    """Keys of all that stands in a message and was not used; those of a mapping of which a part was are nested."""
    for name, value in payload.items():
        key = f"{path}{name}"
        if value is None or key in used:
            continue
        if isinstance(value, Mapping) and any(known.startswith(f"{key}.") for known in used):
            yield from _unread(value, used, f"{key}.")
        else:
            yield key


def _listed(keys: Sequence[str]) -> str:
    """Keys for people; strangers chose them."""
    return ", ".join(repr(key[:60]) for key in keys)[:300]


def _find(payload: Mapping[Any, Any], key: str) -> Any:
    """What stands under a key, or under a path of keys with dots between them; None if nothing does."""
    if key in payload:
        return payload[key]
    outer, _, inner = key.partition(".")
    nested = payload.get(outer)
    return _find(nested, inner) if inner and isinstance(nested, Mapping) else None


def _image(payload: Mapping[Any, Any], key: str) -> np.ndarray:
    image = _find(payload, key)
    if not isinstance(image, np.ndarray):
        raise BadObservation(f"{key!r} must be an encoded array, not {_kind(image)}.")
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[-1] != 3:
        image = image.transpose(1, 2, 0)  # as openpi's ALOHA clients send it
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise BadObservation(f"{key!r} must be uint8 RGB (H, W, 3), not {image.dtype} {image.shape}.")
    return image


def _is_unicode(text: str) -> bool:
    """Whether no half of a surrogate pair is in it, which JSON can smuggle in and tokenizers cannot read."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
