"""Snapshots: everything a run needs to continue bit for bit, as safetensors + JSON, written atomically.

A snapshot is a folder `step-000000012` with `state.json` (the structure) and `state.safetensors` (the tensors).
It is written under a temporary name, flushed to disk and renamed, so a folder of the final name is always complete.
"""

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gymnast_core.errors import CheckpointError
from gymnast_core.runs.atomic import atomic_directory

_TENSOR, _KEYED = "__tensor__", "__int_keys__"


def save_snapshot(directory: Path, step: int, state: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write `state`: nested dicts and lists of tensors, numbers, strings, None. The newest `keep` snapshots remain."""
    tensors: dict[str, Tensor] = {}
    structure = _flatten(state, "", tensors)
    target = directory / f"step-{step:09d}"
    with atomic_directory(target) as temporary:
        save_file(tensors, str(temporary / "state.safetensors"))
        (temporary / "state.json").write_text(json.dumps(structure))
    for old in sorted(directory.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return target


def load_latest_snapshot(directory: Path) -> dict[str, Any] | None:
    """The state of a folder's newest snapshot; None if there is none. Raises `CheckpointError` if it is damaged."""
    newest = max(directory.glob("step-*"), default=None)
    if newest is None:
        return None
    try:
        tensors = load_file(str(newest / "state.safetensors"))
        return json.loads((newest / "state.json").read_text(), object_hook=partial(_unflatten, tensors=tensors))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"Snapshot {newest} is damaged ({error}). Delete that folder to continue from the one before it."
        ) from error


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: path}
    if isinstance(value, Mapping):
        flat = {str(key): _flatten(item, f"{path}.{key}", tensors) for key, item in value.items()}
        # JSON turns integer keys (torch.optim's parameter indices) into strings.
        return {_KEYED: flat} if any(isinstance(key, int) for key in value) else flat
    if isinstance(value, list | tuple):
        return [_flatten(item, f"{path}.{index}", tensors) for index, item in enumerate(value)]
    return value


def _unflatten(value: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    # JSON objects come innermost first, so what is inside `value` is restored already.
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    return {int(key): item for key, item in value[_KEYED].items()} if _KEYED in value else value
