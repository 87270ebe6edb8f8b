"""What judges behind a network have in common: a key, a price, a budget, limits."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.money import in_dollars, total_usd
from gymnast_core.network.address import Address, find_proxy, read_address
from gymnast_core.network.secrecy import Mask, Secret, read_key
from gymnast_core.network.vendors import Vendor
from gymnast_core.types import Rollout, Task
from gymnast_vlm_reward.config import KEY, ServiceConfig
from gymnast_vlm_reward.engine import Engine
from gymnast_vlm_reward.ledger import Ledger
from gymnast_vlm_reward.limits import RateLimit
from gymnast_vlm_reward.prices import find_price
from gymnast_vlm_reward.provider import AskError, Provider
from gymnast_vlm_reward.reward import VLMReward
from gymnast_vlm_reward.store import Store
from gymnast_vlm_reward.wire import Wire

log = logging.getLogger(__name__)

_FRESH_S = 3600.0
"""A judge that answered in the last hour is not asked again whether it does."""
_PROBED: set[str] = set()
"""Judges that answered in this process."""
_TYPICAL_FRAMES = 41
"""A rollout of 40 control steps, for the estimate that is printed before the number of rollouts is known."""


@dataclass(frozen=True)
class Connection:
    """How to reach a server."""

    address: Address
    key: Secret | None
    mask: Mask
    timeout_s: float

    def wire(self, headers: Mapping[str, str]) -> Wire:
        """A client that sends these headers."""
        return Wire(self.address, headers, self.timeout_s, self.mask)


class ServiceReward(VLMReward):
    """A judge that is asked over HTTP."""

    vendor: ClassVar[str]
    """Which kind of interface, e.g. "openai"; part of the cache's key."""

    endpoint: ClassVar[str]
    """What is added to the base URL."""

    server: ClassVar[Vendor | None] = None
    """Whose key is sent where no variable is named, to that vendor's own server alone."""

    def __init__(self, config: ServiceConfig) -> None:
        self.config = config
        super().__init__(config)
        self.preflight(1, _TYPICAL_FRAMES)

    @abstractmethod
    def make_provider(self, connection: Connection) -> Provider:
        """The client for the configured server."""

    def attach(self, parts: Parts) -> None:
        """Also asks the model once, before a run imagines anything. Raises `ConfigError` if it does not answer."""
        super().attach(parts)
        imagines = parts.world_model is not None and len(parts.tasks) > 0
        if self.config.probe and imagines and parts.processes.leads:
            self._probe(parts.tasks[0])

    def _probe(self, task: Task) -> None:
        place = json.dumps({**self.asked_of, "namespace": "", "key": self.config.api_key_env}, sort_keys=True)
        if place in _PROBED:
            return
        first_frame = task.frames_TVHWC[-1:]
        no_actions = torch.zeros(1, 1, 1)
        question = self.question(Rollout(task, 0, first_frame, no_actions, no_actions, 1.0, task.cameras))
        if question.fault is not None:
            return
        future = self._background.start(lambda: self.engine.probe(question, _FRESH_S))
        try:
            answers, cost = future.result()
        except AskError as error:
            raise ConfigError(
                f"The judge {self.config.model!r} was asked one question before anything is imagined, and failed: "
                f"{error} ({KEY}.probe=false starts without asking.)"
            ) from None
        except BaseException:
            future.cancel()
            raise
        _PROBED.add(place)
        self.unreported_usd = total_usd((self.unreported_usd, cost))
        faults = [fault for answer in answers if (fault := self.fault_of(answer)) is not None]
        if len(faults) == len(answers):
            log.warning("%s answers, but gave no verdict on a first question: %s.", self.config.model, faults[-1])
        elif cost != 0:
            log.info("%s answers: asked once, for %s.", self.config.model, in_dollars(cost))

    @property
    def structured(self) -> bool:
        return self.config.structured

    @property
    def asked_of(self) -> Mapping[str, object]:
        config = self.config
        return {
            "vendor": self.vendor,
            "server": config.base_url,
            "model": config.model,
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "detail": config.detail,
            "extra": config.extra,
            "namespace": config.namespace,
        }

    def make_engine(self) -> Engine:
        config = self.config
        provider = self.make_provider(connect(config, self.endpoint, self.server))
        price = find_price(config.model, config.prices)
        if price is None and config.max_usd is not None:
            raise ConfigError(
                f"No price is known for the model {config.model!r}, so that {KEY}.max_usd cannot be kept. Give "
                f"{KEY}.prices={{{config.model}: {{input: USD, output: USD}}}} per million tokens, or set "
                f"{KEY}.max_usd=null to spend without a limit."
            )
        if price is None:
            log.warning("No price is known for the model %r: what it costs will not be known.", config.model)
        store = Store(config.cache)
        # One vendor's limits hold for a key and a model, whichever run or account of ours asks.
        name = f"{self.vendor} {config.base_url} {config.api_key_env} {config.model}"
        per_minute = {"requests": config.requests_per_minute, "tokens": config.tokens_per_minute}
        limits = {unit: RateLimit(store, f"{name} {unit}", rate) for unit, rate in per_minute.items() if rate}
        return Engine(
            provider=provider,
            store=store,
            ledger=Ledger(store, config.account, config.max_usd),
            model=config.model,
            price=price,
            votes=config.votes,
            redo=config.redo,
            max_tokens=config.max_tokens,
            detail=config.detail,
            seed=config.seed,
            concurrency=config.concurrency,
            retry=config.retry,
            readable=self.is_readable,
            answer_tokens=min(config.answer_tokens, config.max_tokens),
            progress_s=config.progress_s,
            request_limit=limits.get("requests"),
            token_limit=limits.get("tokens"),
        )


def connect(config: ServiceConfig, endpoint: str, server: Vendor | None = None) -> Connection:
    """What a client needs. Raises `ConfigError` for an address, key or proxy that cannot be used; it shows no key."""
    if not config.base_url:
        raise ConfigError(f"{KEY}.base_url is not set: give the server's address, e.g. http://localhost:8000/v1.")
    address = read_address(config.base_url, f"{KEY}.base_url", endpoint, key_option=f"{KEY}.api_key_env")
    variable = config.api_key_env if server is None else server.key_variable(config.api_key_env, address)
    key = read_key(variable, f"the model {config.model!r}", f"{KEY}.api_key_env")
    proxy = find_proxy(address)
    secrets = [None if key is None else key.value, *([] if proxy is None else proxy.secrets)]
    return Connection(address, key, Mask(secrets), config.retry.timeout_s)
