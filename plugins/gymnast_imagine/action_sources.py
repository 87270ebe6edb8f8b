"""Actions in robot units: those of a file, of a sweep, and how far they reach."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.reading import read_json
from gymnast_core.types import Episode
from gymnast_imagine.config import ImagineConfig, check_width
from gymnast_imagine.rolling import chunks_of

EPISODES_LOOKED_AT = 32
WITHIN = 0.95


@dataclass(frozen=True)
class Space:
    """The action dimensions, as the user or the episodes describe them."""

    names: tuple[str, ...]
    rest_A: Tensor
    """float32, robot units: the action that does nothing."""
    amplitude_A: Tensor
    """float32, robot units: the largest deviation from it."""


def action_space(config: ImagineConfig, episodes: Sequence[Episode] | None) -> Space:
    """Names, rest action and amplitudes. Raises `ConfigError` if nothing tells the amplitudes."""
    if config.amplitude is not None:
        amplitude, owner = torch.tensor(config.amplitude), "amplitude"
        if episodes is not None and (width := episodes[0].actions_TA.shape[-1]) != len(amplitude):
            raise ConfigError(f"amplitude has {len(amplitude)} entries; the episodes' actions have {width} dimensions.")
        check_width("rest", config.rest, len(amplitude), owner)
    elif episodes is not None:
        amplitude, owner = _reach(config, episodes), "episodes"
    else:
        raise ConfigError(
            f"actions={config.actions} needs to know how far each action dimension may go: give amplitude=[a,b,...] in "
            "robot units, one for each dimension, or episodes.name=DATASET to take it from recorded actions."
        )
    width = len(amplitude)
    check_width("names", config.names, width, owner)
    names = tuple(config.names or (f"action {index}" for index in range(width)))
    return Space(names, torch.tensor(config.rest or [0.0] * width), amplitude)


def sweep(space: Space, values: int) -> tuple[Tensor, Tensor]:
    """The actions of a sweep (A, values, A), where [d, v] deviates in dimension d, and the deviations (A, values)."""
    deviations_AV = space.amplitude_A[:, None] * torch.linspace(-1, 1, values)
    width = len(space.amplitude_A)
    actions_AVA = space.rest_A.repeat(width, values, 1)
    for dimension in range(width):
        actions_AVA[dimension, :, dimension] += deviations_AV[dimension]
    return actions_AVA, deviations_AV


def read_actions(path: Path, chunk: int) -> tuple[Tensor, list[int]]:
    """The actions (T, A) of a file, and how they are cut into chunks: as the file says, or `chunk` each.

    JSON is a list of lists, or {"actions": [[...]], "chunks": [...]}; .npz holds arrays of those names. Raises
    `DataError` if it is anything else.
    """
    if not path.exists():
        raise DataError(f"There is no file {path}. Give actions with file=FILE.json or FILE.npz.")
    try:
        values, chunks = _read_npz(path) if path.suffix == ".npz" else _read_json(path)
        if any(isinstance(value, bool | str) for row in values for value in row):
            raise ValueError("it holds values that are not numbers")
        actions_TA = torch.from_numpy(np.array(values, dtype=np.float64)).float()
    except (OSError, ValueError, TypeError, EOFError, OverflowError, RecursionError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} holds no actions: {error}. Write JSON [[a0, a1, ...], ...], one row a control step."
        ) from error
    if actions_TA.ndim != 2 or 0 in actions_TA.shape:
        raise DataError(
            f"{path} holds actions of shape {tuple(actions_TA.shape)}; they need shape (steps, dimensions)."
        )
    if not torch.isfinite(actions_TA).all():
        row, column = (~torch.isfinite(actions_TA)).nonzero()[0].tolist()
        raise DataError(f"{path}: dimension {column} of action {row} is not a finite number.")
    if chunks is None:
        return actions_TA, chunks_of(len(actions_TA), chunk)
    whole = isinstance(chunks, list) and all(type(length) is int and length > 0 for length in chunks)
    if not whole or sum(chunks) != len(actions_TA):
        raise DataError(f"{path}: its chunks are not positive whole numbers that add up to {len(actions_TA)} actions.")
    return actions_TA, chunks


def write_actions(path: Path, actions_TA: Tensor, chunks: Sequence[int], about: dict[str, Any]) -> None:
    """Write a JSON file that `read_actions` reads; `about` says where the actions come from."""
    content = {**about, "chunks": list(chunks), "actions": actions_TA.double().tolist()}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _read_json(path: Path) -> tuple[Any, list[int] | None]:
    content = read_json(path, allow_nan=True)
    if not isinstance(content, dict):
        return content, None
    if "actions" not in content:
        raise ValueError(f"it has the keys {', '.join(content) or 'none'}, and none is called 'actions'")
    return content["actions"], content.get("chunks")


def _read_npz(path: Path) -> tuple[Any, list[int] | None]:
    with np.load(path, allow_pickle=False) as arrays:
        if "actions" not in arrays:
            raise ValueError(f"it has the arrays {', '.join(arrays) or 'none'}, and none is called 'actions'")
        return arrays["actions"], arrays["chunks"].tolist() if "chunks" in arrays else None


def _reach(config: ImagineConfig, episodes: Sequence[Episode]) -> Tensor:
    """What 95 % of the recorded actions stay within, by dimension, as distance from the rest action."""
    looked_at = range(min(EPISODES_LOOKED_AT, len(episodes)))
    actions_NA = torch.cat([episodes[index].actions_TA for index in looked_at]).float()
    check_width("rest", config.rest, actions_NA.shape[1], "episodes")
    distance_NA = (actions_NA - torch.tensor(config.rest or 0.0)).abs()
    reach_A, farthest_A = distance_NA.quantile(WITHIN, dim=0), distance_NA.amax(dim=0)
    # A gripper may rest in all but a few steps.
    reach_A = torch.where(reach_A > 0, reach_A, farthest_A)
    for dimension, value in enumerate(reach_A.tolist()):
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(
                f"Action dimension {dimension} does not move in the episodes, so its amplitude is not known. "
                f"Give all {len(reach_A)} of them: amplitude=[a,b,...]."
            )
    return reach_A
