"""Record episodes into a folder: `python -m gymnast_tabletop.record --episodes 8000 --out DIR`.

    frames.npy     uint8 (N, T, H, W, 3), memory-mappable
    actions.npy    float32 (N, T-1, 2), metres
    states.npy     float32 (N, T, 2 + 3 blocks), see `simulation`
    episodes.json  per episode: seed, instruction, colours, success, behaviour
    meta.json      versions and arguments

Every attempt is a function of its seed alone and attempts are kept in order, so the folder does not depend
on the number of workers.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import mujoco
import numpy as np
from numpy.typing import NDArray

from gymnast_core.errors import ConfigError, DataError, GymnastError, unknown_name
from gymnast_core.runs.atomic import storing
from gymnast_core.runs.progress import Progress
from gymnast_tabletop.experts import BEHAVIOURS, behaviour
from gymnast_tabletop.instructions import draw_instruction, parse, start_scene, success
from gymnast_tabletop.recordings import new_array
from gymnast_tabletop.scene import MAX_DELTA, check_n_blocks
from gymnast_tabletop.simulation import Tabletop
from gymnast_tabletop.splits import SPLITS, split_seed

FORMAT = 1
_BATCH = 16
"""Attempts a worker makes before it hands them over."""
_STREAM = 1_000_000
"""Seeds of a split that one value of `seed` spans."""


@dataclass(frozen=True)
class Recording:
    """What to record."""

    behaviour: str = "play"
    """A name of `experts.BEHAVIOURS`. Demonstrations keep successful episodes only."""
    episodes: int = 100
    actions: int = 20
    """Control steps an episode; it has one frame more."""
    split: str = "training"
    """Range of seeds, see `splits`."""
    image_size: int = 64
    """Pixels a side."""
    n_blocks: int = 2
    seed: int = 0
    """Which stream of the split's seeds: recordings with different values share no scene."""
    keep_failures: bool = False
    """Keep the demonstrations that failed, too."""

    def __post_init__(self) -> None:
        check_n_blocks(self.n_blocks)
        if self.behaviour not in BEHAVIOURS:
            raise ConfigError(unknown_name("behaviour", self.behaviour, BEHAVIOURS))
        for name in ("episodes", "actions", "image_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        split_seed(self.split, (self.seed + 1) * _STREAM - 1)


@dataclass(frozen=True)
class Attempt:
    """One recorded episode."""

    frames_THWC: NDArray[np.uint8]
    actions_TA: NDArray[np.float32]
    states_TS: NDArray[np.float32]
    seed: int
    instruction: str
    colours: tuple[str, ...]
    success: bool


def attempt(recording: Recording, index: int, table: Tabletop) -> Attempt:
    """Record the `index`-th attempt; it depends on nothing but the recording's settings and the index."""
    seed = split_seed(recording.split, recording.seed * _STREAM + index)
    scene = start_scene(seed, recording.n_blocks)
    instruction = draw_instruction(seed, scene)
    act = behaviour(recording.behaviour, scene, instruction, np.random.default_rng([seed, 1234]))
    table.reset(scene)
    frames, states, actions = [table.render()], [table.state], []
    for _ in range(recording.actions):
        # What is stored is what was commanded, in the precision in which it is stored.
        action = np.clip(act(table.state), -MAX_DELTA, MAX_DELTA).astype(np.float32)
        table.step(action)
        actions.append(action)
        frames.append(table.render())
        states.append(table.state)
    done = success(parse(instruction), scene.colours, states[0], states[-1])
    return Attempt(
        np.stack(frames),
        np.stack(actions),
        np.stack(states).astype(np.float32),
        seed,
        instruction,
        scene.colours,
        done,
    )


def _attempts(recording: Recording, batch: int) -> list[Attempt]:
    table = Tabletop(n_blocks=recording.n_blocks, image_size=recording.image_size)
    keep_all = recording.keep_failures or recording.behaviour == "play"
    made = (attempt(recording, batch * _BATCH + i, table) for i in range(_BATCH))
    return [one for one in made if keep_all or one.success]


def _kept(recording: Recording, workers: int) -> Generator[Attempt, None, None]:
    """Kept attempts in the order of their seeds, without end as far as the split's stream reaches."""
    batches = range(_STREAM // _BATCH)
    if workers <= 1:
        for batch in batches:
            yield from _attempts(recording, batch)
        return
    # Workers must not inherit a forked MuJoCo or thread pool. They run ahead by a bounded number of batches
    # only: `imap` over the whole stream would never stop filling the queue.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        waiting = [pool.apply_async(_attempts, (recording, batch)) for batch in batches[: 2 * workers]]
        for batch in batches[2 * workers :]:
            yield from waiting.pop(0).get()
            waiting.append(pool.apply_async(_attempts, (recording, batch)))
        for result in waiting:
            yield from result.get()


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` once the block succeeds."""
    with storing(out):
        if out.exists():
            raise DataError(f"{out} exists already. Remove it, or give another --out.")
        temporary = out.with_name(f".{out.name}.{os.getpid()}")
        temporary.mkdir(parents=True)
        try:
            yield temporary
            temporary.rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def record(recording: Recording, out: Path, *, workers: int = 1, progress: bool = False) -> None:
    """Record into the new folder `out`, atomically. Raises `DataError` when it exists."""
    n, frames = recording.episodes, recording.actions + 1
    size, states = recording.image_size, 2 + 3 * recording.n_blocks
    with _new_folder(out) as folder:
        frames_NTHWC = new_array(folder / "frames.npy", np.uint8, (n, frames, size, size, 3))
        actions_NTA = new_array(folder / "actions.npy", np.float32, (n, frames - 1, 2))
        states_NTS = new_array(folder / "states.npy", np.float32, (n, frames, states))
        episodes: list[dict[str, object]] = []
        kept = _kept(recording, workers)
        with Progress("Recording", n, unit="episode", log_seconds=5.0) if progress else nullcontext() as display:
            for i, one in zip(range(n), kept, strict=False):
                frames_NTHWC[i], actions_NTA[i], states_NTS[i] = one.frames_THWC, one.actions_TA, one.states_TS
                episodes.append(
                    {
                        "seed": one.seed,
                        "instruction": one.instruction,
                        "colours": list(one.colours),
                        "success": one.success,
                        "behaviour": recording.behaviour,
                    }
                )
                if display is not None:
                    display.update(i + 1, {})
        kept.close()
        if len(episodes) < n:
            raise DataError(f"Only {len(episodes)} of {n} episodes succeeded in {_STREAM} attempts. Record fewer.")
        for array in (frames_NTHWC, actions_NTA, states_NTS):
            array.flush()
        (folder / "episodes.json").write_text(json.dumps(episodes, separators=(",", ":")))
        meta = {"format": FORMAT, "recording": asdict(recording), "versions": _versions()}
        (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")


def _versions() -> dict[str, str]:
    try:
        gymnast = version("gymnast")
    except PackageNotFoundError:
        gymnast = "unknown"
    return {"gymnast": gymnast, "mujoco": mujoco.__version__, "numpy": np.__version__}


@click.command()
@click.option("--behaviour", type=click.Choice(list(BEHAVIOURS)), default="play", show_default=True)
@click.option("--episodes", type=int, default=100, show_default=True, help="Episodes to keep.")
@click.option("--actions", type=int, default=20, show_default=True, help="Control steps an episode.")
@click.option("--split", type=click.Choice(list(SPLITS)), default="training", show_default=True)
@click.option("--image-size", type=int, default=64, show_default=True, help="Pixels a side.")
@click.option("--n-blocks", type=int, default=2, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Another value, other scenes.")
@click.option("--keep-failures", is_flag=True, help="Keep demonstrations that failed.")
@click.option("--workers", type=int, default=1, show_default=True, help="Processes; the result is the same.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to create.")
def main(out: Path, workers: int, **settings: Any) -> None:
    """Record episodes of the tabletop."""
    try:
        record(Recording(**settings), out, workers=workers, progress=True)
    except GymnastError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
