"""Replay a recording in a world model: the same actions and true states under imagined frames.

    python -m gymnast_tabletop.replay --recording data/play --world-model CHECKPOINT --out data/play-imagined

What a reward model sees in training differs from real frames by the world model's artefacts. A recording replayed this
way shows them with labels that are true of the actions, so that a judge can be fitted (or measured) on both.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import click
import numpy as np
import torch

from gymnast_core.errors import DataError, GymnastError
from gymnast_core.plugins.compose import registries
from gymnast_core.reading import read_json
from gymnast_core.runs.atomic import atomic_directory
from gymnast_core.runs.progress import Progress
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Task, one_camera
from gymnast_tabletop.recordings import Folder, new_array

CHUNK = 4
"""Actions a step: the chunk length of the tabletop's policy."""


def replay(
    recording: Path, out: Path, checkpoint: str, *, actions: int, episodes: int | None, seed: int, batch: int = 256
) -> None:
    """Write the new recording `out`. Raises `DataError` when it exists or the recording is shorter than `actions`."""
    if out.exists():
        raise DataError(f"{out} exists already. Choose another folder or delete it.")
    source = Folder(recording)
    count = min(episodes or len(source.seeds), len(source.seeds))
    if source.actions_NTA.shape[1] < actions:
        raise DataError(
            f"{recording} has {source.actions_NTA.shape[1]} actions an episode; --actions asks for {actions}."
        )
    world = registries().world_models.build("worldgym", {"checkpoint": checkpoint, "compute_dtype": "auto"})
    height, width = source.frames_NTHWC.shape[2:4]
    with atomic_directory(out) as folder:
        shape = (count, actions + 1, height, width, 3)
        frames = new_array(folder / "frames.npy", np.uint8, shape)
        with Progress("Replaying", count, unit="episode", log_seconds=5.0) as progress:
            for first in range(0, count, batch):
                part = slice(first, min(first + batch, count))
                start = torch.from_numpy(np.array(source.frames_NTHWC[part, :1]))
                state = world.reset(
                    [Task(str(i), "", one_camera(frame)) for i, frame in enumerate(start)],
                    generator=seeded_generator(seed, "replay", first),
                )
                taken = torch.from_numpy(source.actions_NTA[part, :actions])
                imagined = [
                    world.step(state, chunk).frames_BLVHWC[:, :, 0].cpu() for chunk in taken.split(CHUNK, dim=1)
                ]
                frames[part] = torch.cat([start, *imagined], dim=1).numpy()
                progress.update(part.stop, {})
        frames.flush()
        np.save(folder / "actions.npy", source.actions_NTA[:count, :actions])
        np.save(folder / "states.npy", source.states_NTS[:count, : actions + 1])
        records = read_json(recording / "episodes.json")[:count]
        (folder / "episodes.json").write_text(json.dumps(records, separators=(",", ":")))
        shutil.copy(recording / "meta.json", folder / "recording.json")
        meta = {"replay": {"world_model": checkpoint, "actions": actions, "seed": seed, "recording": recording.name}}
        (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")


@click.command()
@click.option("--recording", type=click.Path(path_type=Path), required=True, help="Folder that `record` wrote.")
@click.option("--world-model", "checkpoint", required=True, help="Checkpoint of a WorldGym of the same frame size.")
@click.option("--actions", type=int, default=16, show_default=True, help="Control steps replayed, from the first.")
@click.option("--episodes", type=int, help="Episodes replayed, from the first; all if not given.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to create.")
def main(recording: Path, out: Path, checkpoint: str, actions: int, episodes: int | None, seed: int) -> None:
    """Replay a recording in a world model."""
    try:
        replay(recording, out, checkpoint, actions=actions, episodes=episodes, seed=seed)
    except GymnastError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
