"""Presets of the published checkpoints (`published.yaml`).

They multiply in bfloat16 where that is fast (`compute_dtype: auto`; `compute_dtype=float32` turns it off). On recorded
rollouts of the original (16 channels of latents with a standard deviation of 1.3 to 1.7, 12 frames on their own
predictions), bfloat16 differs from float32 by at most 0.032 (0.0033 in the root mean square) in a latent, with guidance
3 by 0.077 (0.011): 9 and 20 of 255 in the worst pixel, 0.2 and 0.6 on average. Those are small networks with random
weights; of the published ones nothing is measured. The autoencoder stays in float32: what it rounds would stand in
every frame that the policy and the judge see, and no error of it in bfloat16 is known that could be stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from gymnast_core.errors import ConfigError, unknown_name


@cache
def _presets() -> dict[str, dict[str, Any]]:
    text = resources.files(__package__).joinpath("published.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def names() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(_presets())


def preset(name: str | None) -> dict[str, Any]:
    """Field values of a preset; none without a name. Raises `ConfigError` that lists the known ones."""
    if name is None:
        return {}
    if name not in _presets():
        raise ConfigError(unknown_name("preset", name, names()))
    return dict(_presets()[name])


def fitting(sizes: Mapping[str, int]) -> list[str]:
    """Names of the presets that are of weights of these sizes."""
    return [name for name in names() if sizes.items() <= preset(name).items()]


def compute_dtype(chosen: str | None, name: str | None) -> str:
    """The dtype of the matrix products, by name: the user's choice, else that of the preset `name`, else float32."""
    return chosen or preset(name).get("compute_dtype", "float32")
