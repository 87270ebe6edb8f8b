"""What tokens cost: data in prices.yaml, overridable."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any

import yaml

from gymnast_core.errors import ConfigError, unknown_name

_DATE = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
_TILE = 512
_LEAST_OF_IMAGE = 85
"""Tokens that even a tiny image may have: models scale it up to what they know."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one request as the server counted them."""

    input_tokens: int
    """All input tokens, cached ones included."""
    output_tokens: int
    cached_tokens: int = 0
    """Those of the input tokens that the vendor had in its own cache."""


@dataclass(frozen=True)
class Price:
    """USD per million tokens, and how images become tokens (see prices.yaml)."""

    input: float
    output: float
    cached_input: float | None = None
    image_tokens: float | None = None
    tile_tokens: float = 0.0
    pixels_per_token: float = 750.0

    def usd(self, usage: Usage) -> float:
        cached_price = self.input if self.cached_input is None else self.cached_input
        fresh = usage.input_tokens - usage.cached_tokens
        return (fresh * self.input + usage.cached_tokens * cached_price + usage.output_tokens * self.output) / 1e6

    def tokens_of_image(self, width: int, height: int, detail: str) -> int:
        """Tokens of an image of that size in pixels; `detail` is "low" or "high"."""
        if self.image_tokens is None:
            return max(_LEAST_OF_IMAGE, math.ceil(width * height / self.pixels_per_token))
        tiles = 0 if detail == "low" else math.ceil(width / _TILE) * math.ceil(height / _TILE)
        return math.ceil(self.image_tokens + self.tile_tokens * tiles)


UNPRICED = Price(0.0, 0.0)
"""For counting the tokens of models without a price; never used for money."""


def find_price(model: str, overrides: Mapping[str, Any]) -> Price | None:
    """The price of a model: from the overrides, then from prices.yaml, there also without the date in the name."""
    table = yaml.safe_load(resources.files(__package__).joinpath("prices.yaml").read_text(encoding="utf-8"))
    for prices, key in ((overrides, "reward_model.args.prices"), (table, "prices.yaml")):
        for name in (model, _DATE.sub("", model)):
            if name in prices:
                return _price(prices[name], f"{key}.{name}")
    return None


def _price(values: Any, key: str) -> Price:
    known = [field.name for field in fields(Price)]
    if not isinstance(values, Mapping) or not {"input", "output"} <= set(values):
        raise ConfigError(f"{key} must give input and output in USD per million tokens, e.g. {{input: 3, output: 15}}.")
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{key}: {unknown_name('key', str(name), known)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"{key}.{name} is {value!r}; it must be a number >= 0.")
    if values.get("pixels_per_token") == 0:
        raise ConfigError(f"{key}.pixels_per_token is 0; it must be more.")
    return Price(**values)
