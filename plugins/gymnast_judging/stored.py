"""Rollouts on disk, bit for bit, with their first judgement: RUN/rollouts/{unscored,scored}/PLACE/.

Each place holds up to `PART` rollouts of one draw as a snapshot (safetensors + JSON, written atomically). A place is
named after the draw's label and first group, so a draw that is repeated after a kill replaces its own files, and each
of several processes writes its own. What a resumed run repeats is removed when it starts: its processes may be others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import DataError
from gymnast_core.interfaces import RewardModel
from gymnast_core.plugins.registry import registries
from gymnast_core.reading import read_json
from gymnast_core.rollouts.state import reward_from_state, rollout_from_state, to_state
from gymnast_core.runs.atomic import remove
from gymnast_core.runs.snapshot import load_latest_snapshot, save_snapshot
from gymnast_core.types import Reward, Rollout

PART = 32
"""Rollouts that are read into memory at once."""
KINDS = ("unscored", "scored")
_ITERATION = re.compile(r"iteration-(\d+)-")


@dataclass(frozen=True)
class Place:
    """Some stored rollouts; reading one does not load their frames."""

    path: Path
    judge: ComponentConfig
    """Who judged them first."""
    reward_kind: str
    """What its rewards are: "success" or "score"."""
    ids: tuple[str, ...]
    """One a rollout: its draw, its number there, and a digest of what happened in it."""
    frames: int
    """Frames of the first one."""

    def load(self) -> tuple[list[Rollout], list[Reward]]:
        """The rollouts and their first rewards. Raises `DataError` if they are damaged."""
        state = load_latest_snapshot(self.path)
        if state is None:
            raise DataError(f"{self.path} is gone: another process removed it. Run the command again.")
        rewards = [reward_from_state(item) for item in state["rewards"]]
        return [rollout_from_state(item) for item in state["rollouts"]], rewards


def store(
    folder: Path,
    label: str,
    rollouts: Sequence[Rollout],
    rewards: Sequence[Reward],
    judge: ComponentConfig,
    *,
    reward_kind: str = "success",
    scored_bytes: int = 0,
) -> int:
    """Keep a draw's rollouts: all that could not be judged, and the first others that fit into `scored_bytes`.

    `label` is "iteration-000003" or that of an evaluation. Returns the bytes that judged rollouts take.
    """
    if not rollouts:
        return 0
    stem = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', label).lstrip('.')}-group-{rollouts[0].group:06d}"
    unscored = [i for i, reward in enumerate(rewards) if reward.error is not None]
    scored, used = [], 0
    for i, reward in enumerate(rewards):
        size = _size(rollouts[i])
        if reward.error is None and used + size <= scored_bytes:
            scored.append(i)
            used += size
    for kind, chosen in zip(KINDS, (unscored, scored), strict=True):
        directory = folder / "rollouts" / kind
        for old in directory.glob(f"{stem}-*"):
            remove(old)
        for part, first in enumerate(range(0, len(chosen), PART)):
            indices = chosen[first : first + PART]
            state = {
                "judge": asdict(judge),
                "reward_kind": reward_kind,
                "ids": [f"{stem}/{i:04d}-{_digest(rollouts[i])}" for i in indices],
                "rollouts": [to_state(rollouts[i]) for i in indices],
                "rewards": [to_state(rewards[i]) for i in indices],
            }
            save_snapshot(directory / f"{stem}-{part:02d}", 0, state, keep=1)
    return used


def kind_of(judge: ComponentConfig, built: RewardModel | None = None) -> str:
    """What a judge's rewards are, "success" or "score": as it says itself, or else its class."""
    return registries().reward_models.load(judge.name).kind if built is None else built.kind


def remove_later(folder: Path, done: int) -> None:
    """Remove what was kept of iterations after `done`, which a resumed run repeats."""
    for kind in KINDS:
        for path in (folder / "rollouts" / kind).glob("iteration-*"):
            found = _ITERATION.match(path.name)
            if found and int(found[1]) > done:
                remove(path)


def prune_scored(folder: Path, iteration: int, *, keep_iterations: int, keep_bytes: int) -> None:
    """Remove judged rollouts of iterations up to `iteration - keep_iterations`, then the oldest beyond `keep_bytes`."""
    places = _by_iteration(folder, "scored")
    total = sum(size for _, _, size in places)
    for number, path, size in places:
        if number <= iteration - keep_iterations or total > keep_bytes:
            remove(path)
            total -= size


def prune_unscored(folder: Path, keep_bytes: int) -> int:
    """Remove the oldest rollouts of iterations that could not be judged, beyond `keep_bytes`; how many places went."""
    places = _by_iteration(folder, "unscored")
    total, removed = sum(size for _, _, size in places), 0
    for _, path, size in places:
        if total > keep_bytes:
            remove(path)
            total -= size
            removed += 1
    return removed


def _by_iteration(folder: Path, kind: str) -> list[tuple[int, Path, int]]:
    """Iteration, place and bytes on the disk of what is kept of iterations, the oldest first."""
    return sorted(
        (int(found[1]), path, sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))
        for path in (folder / "rollouts" / kind).glob("iteration-*")
        if (found := _ITERATION.match(path.name))
    )


def stored_places(folder: Path, *, all_rollouts: bool = False) -> list[Place]:
    """What a run folder keeps, in order: rollouts that could not be judged, and with `all_rollouts` the others, too.

    Raises `DataError` if the folder is no run's or a file is damaged.
    """
    if not (folder / "config.yaml").is_file():
        raise DataError(f"{folder} is not a run folder: it has no config.yaml. Give the folder of a run.")
    paths = [
        path
        for kind in KINDS[: 1 + all_rollouts]
        for path in sorted((folder / "rollouts" / kind).glob("*"))
        if not path.name.startswith(".")
    ]
    return [place for path in paths if (place := _place(path)) is not None]


def _place(path: Path) -> Place | None:
    header = next(path.glob("step-*/state.json"), None)
    if header is None:  # its writing was interrupted
        return None
    try:
        content = read_json(header, allow_nan=True)
        frames = _frames(header.with_suffix(".safetensors"), content["rollouts"][0])
        judge = ComponentConfig(**content["judge"])
        return Place(path, judge, content["reward_kind"], tuple(content["ids"]), frames)
    except (DataError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{header} is damaged ({error!r}). Delete {path} to go on without it.") from error


def _frames(tensors: Path, rollout: dict[str, Any]) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(tensors), framework="pt") as file:
            return file.get_slice(rollout["frames_TVHWC"]["__tensor__"]).get_shape()[0]
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _digest(rollout: Rollout) -> str:
    hasher = hashlib.sha256()
    for tensor in (rollout.frames_TVHWC, rollout.actions_NLA):
        hasher.update(tensor.cpu().contiguous().numpy().data)
    return hasher.hexdigest()[:12]


def _size(rollout: Rollout) -> int:
    def size(value: Any) -> int:
        if isinstance(value, Tensor):
            return value.nbytes
        return sum(map(size, value.values())) if isinstance(value, dict) else 0

    return size(to_state(rollout))
