"""A policy that runs elsewhere: what `policy: {name: remote}` builds."""

from __future__ import annotations

import ipaddress
import logging
import math
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import urlsplit

import numpy as np
import torch
from gymnast_core.config.ranges import AnyNumber, Choices, Count, Range
from gymnast_core.errors import ConfigError, DataError, unknown_name
from gymnast_core.interfaces import Policy
from gymnast_core.network.address import Address, read_address
from gymnast_core.network.secrecy import Mask, read_key
from gymnast_core.types import ActionChunk, Evaluation, Needs, Observation
from torch import Tensor, nn

if TYPE_CHECKING:
    from gymnast_remote.clients import Client

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Protocol:
    schemes: tuple[str, ...]
    path: str
    image_key: str
    instruction_key: str
    authorization: str


PROTOCOLS = {
    "openvla": _Protocol(("http", "https"), "/act", "image", "instruction", "Bearer"),
    "openpi": _Protocol(("ws", "wss"), "/", "observation/image", "prompt", "Api-Key"),
}
NO_LIKELIHOOD = (
    "the server answers actions and not how likely they were, and its weights are out of reach. "
    "Evaluate it with `gymnast evaluate`; to train, use a policy that runs here."
)


class RemotePolicy(Policy):
    """Any policy behind OpenVLA's `/act` REST endpoint or openpi's websocket, for evaluation.

    Log-probabilities are NaN, (B, L, 1); `evaluate` and training are refused. Raises `RemoteError` (a `GymnastError`)
    when the server cannot be reached, refuses, or answers something else than actions.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        url: str = "http://127.0.0.1:8000"
        """Address of the server, without a login: http(s)://HOST:PORT for openvla, ws(s)://HOST:PORT for openpi."""
        protocol: Annotated[str, Choices("openvla", "openpi")] = "openvla"
        """"openvla" (POST /act; also OpenVLA-OFT's server) or "openpi" (msgpack over a websocket)."""
        chunk_length: Count = 1
        """L, actions executed of each decision; a server that answers more has the rest ignored."""
        action_dim: Count = 7
        """A, width of the server's actions."""
        image_keys: list[str] = field(default_factory=list)
        """Key of each camera in what is sent; empty: "image" (openvla), "observation/image" (openpi). A dot nests:
        "images.cam_high" is {"images": {"cam_high": ...}}."""
        cameras: list[str] = field(default_factory=list)
        """Name of the camera behind each key, as the world calls it; empty: as many cameras as keys, in the world's
        order."""
        blank_image_keys: list[str] = field(default_factory=list)
        """Keys of further images that the server insists on and that are sent black, e.g. "observation/wrist_image"."""
        channels_first: bool = False
        """Send images as (C, H, W), as openpi's ALOHA policies take them; otherwise (H, W, C)."""
        instruction_key: str | None = None
        """Key of the instruction; None: "instruction" (openvla), "prompt" (openpi)."""
        state_key: str | None = None
        """Key of the proprioceptive state, e.g. "observation/state"; None sends none."""
        state_width: Count | None = None
        """Readings of the state that the server reads; needed with `state_key`."""
        blank_state: bool = False
        """Send zeros as the state, for worlds that measure none."""
        unnorm_key: str | None = None
        """Dataset whose action statistics an OpenVLA server is to use; None sends none."""
        action_scale: list[AnyNumber] = field(default_factory=list)
        """Robot units = server's action * scale + offset, a number a dimension. Empty means 1. For a gripper that the
        server opens at -1 and closes at +1, and that is 1 open and 0 closed here: scale -0.5, offset 0.5."""
        action_offset: list[AnyNumber] = field(default_factory=list)
        """A number a dimension; empty means 0."""
        token_env: str = "GYMNAST_REMOTE_TOKEN"
        """Environment variable that holds the server's token, where it wants one."""
        timeout: Annotated[float, Range(above=0, most=86_400)] = 60.0
        """Seconds for one decision, those that the server makes before it included (`concurrency`)."""
        retries: Annotated[int, Range(least=0, most=1000)] = 4
        """Further attempts, with growing pauses, while the connection fails or the server says that it is busy."""
        concurrency: Annotated[int, Range(least=1, most=1024)] = 4
        """Observations in flight at once."""
        stochastic: bool = False
        """The server samples by itself: accept any temperature, which then has no influence."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.chunk_length, self.action_dim = config.chunk_length, config.action_dim
        self._client: Client | None = None

    @classmethod
    def needs(cls, config: Config) -> Needs:
        cameras = tuple(config.cameras) or len(config.image_keys) or 1
        return Needs(cameras, proprio=None if config.blank_state else config.state_width)

    @torch.no_grad()
    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        """One request an observation. `generator` has no influence: the server has its own randomness, if any."""
        if temperature > 0 and not self.config.stochastic:
            raise ConfigError(
                f"A remote policy cannot be sampled at temperature {temperature:g}: the server decides how it samples. "
                "Set temperature=0, or stochastic=true among the policy's args if the server samples by itself."
            )
        answers = self._connected().decide(self._payloads(observation))
        actions_BLA = torch.from_numpy(np.stack([self._robot_units(answer) for answer in answers]))
        actions_BLA = actions_BLA.to(observation.images_BTVHWC.device)
        return ActionChunk(actions_BLA, torch.full_like(actions_BLA[..., :1], math.nan))

    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float | Tensor = 1.0
    ) -> Evaluation:
        raise ConfigError(f"A remote policy cannot be trained by reinforcement learning: {NO_LIKELIHOOD}")

    def module(self) -> NoReturn:
        raise ConfigError(f"A remote policy cannot be trained: {NO_LIKELIHOOD}")

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        # Whoever asks is about to train, and an empty list would fail later, in torch's words.
        self.module()

    def close(self) -> None:
        """Close the connections; the next decision opens them anew."""
        if self._client is not None:
            self._closing()
            self._client = None

    def __getstate__(self) -> dict[str, Any]:
        # Copies and other processes open connections of their own.
        return {key: value for key, value in self.__dict__.items() if key != "_closing"} | {"_client": None}

    def _connected(self) -> Client:
        if self._client is None:
            from gymnast_remote.clients import Link, OpenpiClient, OpenVLAClient

            config, protocol = self.config, PROTOCOLS[self.config.protocol]
            address, token = _address(config), _token(config)
            url = address.url("" if urlsplit(address.base).path else protocol.path)
            headers = {}
            if token is not None:
                headers["Authorization"] = f"{protocol.authorization} {token}"
                if address.scheme in ("http", "ws") and not is_loopback(address.host):
                    logger.warning("The token of %s travels unencrypted; prefer https or an SSH tunnel.", address.base)
            link = Link(url, headers, config.timeout, config.retries, config.concurrency, Mask([token]))
            self._client = OpenVLAClient(link) if config.protocol == "openvla" else OpenpiClient(link)
            self._closing = weakref.finalize(self, self._client.close)
        return self._client

    def _payloads(self, observation: Observation) -> list[dict[str, Any]]:
        config, protocol = self.config, PROTOCOLS[self.config.protocol]
        keys = config.image_keys or [protocol.image_key]
        images_BVHWC = observation.latest_BVHWC.cpu().numpy()
        if images_BVHWC.shape[1] != len(keys):
            raise DataError(
                f"The observation has {images_BVHWC.shape[1]} cameras, image_keys names {len(keys)} ({keys}). "
                "Name one key a camera; blank_image_keys are for those that the server wants and nobody has."
            )
        state_BP = self._state(observation)
        payloads = []
        for i, instruction in enumerate(observation.instructions):
            payload: dict[str, Any] = {}
            blank = np.zeros_like(images_BVHWC[i, 0])
            images = [*zip(keys, images_BVHWC[i], strict=True), *((key, blank) for key in config.blank_image_keys)]
            for key, image_HWC in images:
                _put(payload, key, image_HWC.transpose(2, 0, 1) if config.channels_first else image_HWC)
            _put(payload, config.instruction_key or protocol.instruction_key, instruction)
            if config.state_key is not None and state_BP is not None:
                _put(payload, config.state_key, state_BP[i])
            if config.unnorm_key is not None:
                payload["unnorm_key"] = config.unnorm_key
            payloads.append(payload)
        return payloads

    def _state(self, observation: Observation) -> np.ndarray | None:
        key, width, proprio_BP = self.config.state_key, self.config.state_width, observation.latest_proprio_BP
        if key is None or width is None:
            return None
        if self.config.blank_state:
            return np.zeros((len(observation.instructions), width), np.float32)
        if proprio_BP is None:
            raise DataError(f"The world measures no state to send as {key!r}; set blank_state=true to send zeros.")
        if proprio_BP.shape[1] != width:
            raise DataError(f"The world measures {proprio_BP.shape[1]} proprioceptive values; state_width is {width}.")
        return proprio_BP.float().cpu().numpy()

    def _robot_units(self, answer: np.ndarray) -> np.ndarray:
        """The chunk of one answer, (L, A)."""
        actions_HA = answer if answer.ndim == 2 else answer[None]
        if actions_HA.shape[1] != self.action_dim:
            raise DataError(
                f"The server's actions have {actions_HA.shape[1]} dimensions, not {self.action_dim}: set "
                f"action_dim={actions_HA.shape[1]} if the world's robot has as many."
            )
        if len(actions_HA) < self.chunk_length:
            raise DataError(
                f"The server answers {len(actions_HA)} actions a decision, fewer than chunk_length="
                f"{self.chunk_length}: set chunk_length={len(actions_HA)}."
            )
        scale = np.asarray(self.config.action_scale or 1.0, np.float32)
        offset = np.asarray(self.config.action_offset or 0.0, np.float32)
        return actions_HA[: self.chunk_length] * scale + offset


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(config: RemotePolicy.Config) -> Address:
    """Of the server, in which nothing is secret. Raises `ConfigError` for one that cannot be used."""
    schemes = PROTOCOLS[config.protocol].schemes
    example = f"{schemes[0]}://127.0.0.1:8000"
    return read_address(config.url, "url", key_option="token_env", schemes=schemes, example=example)


def _token(config: RemotePolicy.Config) -> str | None:
    """The server's, if there is one. Raises `ConfigError`, which does not show it, for one that cannot be sent."""
    found = read_key(config.token_env, "the policy server", "token_env", needed=False, spaces=True)
    return None if found is None else found.value


def _put(payload: dict[str, Any], key: str, value: Any) -> None:
    *outer, last = key.split(".")
    for name in outer:
        payload = payload.setdefault(name, {})
    payload[last] = value


def _check(config: RemotePolicy.Config) -> None:
    protocol = PROTOCOLS.get(config.protocol)
    if protocol is None:
        raise ConfigError(unknown_name("protocol", config.protocol, PROTOCOLS))
    _address(config)
    _token(config)
    counts = {"chunk_length": 1, "action_dim": 1, "retries": 0, "concurrency": 1, "state_width": 1}
    for name, least in counts.items():
        number = getattr(config, name)
        if number is not None and number < least:
            raise ConfigError(f"{name} is {number}; it must be at least {least}.")
    if not 0 < config.timeout < math.inf:
        raise ConfigError(f"timeout is {config.timeout}; it must be a positive number of seconds.")
    for name in ("action_scale", "action_offset"):
        if len(getattr(config, name)) not in (0, config.action_dim):
            count = len(getattr(config, name))
            raise ConfigError(f"{name} has {count} numbers; give one a dimension ({config.action_dim}), or none.")
    keys = len(config.image_keys) or 1
    if config.cameras and len(config.cameras) != keys:
        raise ConfigError(f"cameras names {len(config.cameras)}, and {keys} images are sent: one image_keys a camera.")
    if len(set(config.cameras)) < len(config.cameras):
        raise ConfigError(f"cameras is {config.cameras}; name each camera once.")
    if (config.state_width is None) != (config.state_key is None):
        raise ConfigError(
            "A state has a name and a width: set state_key, under which it is sent, and state_width, its readings; or "
            "neither."
        )
    if config.blank_state and config.state_key is None:
        raise ConfigError("blank_state needs state_key and state_width, which say what zeros are sent.")
