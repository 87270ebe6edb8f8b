"""Recorded episodes under imagined frames: the same actions and outcomes, as a world model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Count, Seed
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Dataset
from gymnast_core.plugins.compose import offers_of, registries
from gymnast_core.rollouts.sight import Names, shown_cameras
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Episode, Task
from gymnast_episodes.crops import by_batches


class ReplayedEpisodes(Dataset):
    """Episodes of another dataset, replayed in a world model from their first frame.

    What a judge sees in a training in imagination has the world model's faults. Episodes replayed this way show them
    under labels that are true of the actions, so that a judge can be fitted to them, or measured. `gymnast convert`
    keeps them, so that each is imagined once:

        gymnast convert replayed-episodes data/play-imagined
            episodes='{name: lerobot, args: {path: data/play}}'
            world_model='{name: worldgym, args: {checkpoint: CHECKPOINT}}'
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        episodes: ComponentConfig
        """What is replayed, a dataset of episodes: {name, args}."""
        world_model: ComponentConfig
        """Where: {name, args}. It shows cameras that the episodes have: all or some of them, in its own order."""
        chunk: Count = 4
        """Actions a step: the chunk length of the policy that is to be judged."""
        batch_size: Count = 64
        """Episodes imagined together; they are kept until another batch is asked for."""
        seed: Seed = 0
        """Of the imagination, drawn anew for each batch."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._dataset = registries().datasets.build(config.episodes.name, config.episodes.args, key="episodes")
        part = config.world_model
        self._offers = offers_of(part)
        self._world = registries().world_models.build(part.name, part.args, key="world_model")

    def episodes(self) -> Sequence[Episode]:
        recorded = self._dataset.episodes()
        replayed = by_batches(
            len(recorded), self.config.batch_size, lambda number, part: self._imagined(recorded[part], number),
            "replayed-episodes",
        )  # fmt: skip
        replayed.frames, replayed.ids = getattr(recorded, "frames", None), getattr(recorded, "ids", None)
        replayed.cropped = getattr(recorded, "cropped", False)
        return replayed

    @torch.no_grad()
    def _imagined(self, episodes: Sequence[Episode], number: int) -> list[Episode]:
        """The batch of that number. Shorter episodes go on with actions of 0, and what that shows is cut off."""
        lengths = [len(episode.actions_TA) for episode in episodes]
        if min(lengths) < 1:
            raise DataError(f"Episode {episodes[lengths.index(min(lengths))].id!r} has no action to replay.")
        most = -(-max(lengths) // self.config.chunk) * self.config.chunk
        actions_BTA = torch.stack(
            [F.pad(e.actions_TA, (0, 0, 0, most - n)) for e, n in zip(episodes, lengths, strict=True)]
        )
        cameras = shown_cameras(self._offers, episodes[0].cameras, Names(tasks="the episodes"))
        first = [torch.stack([e.view(camera)[:1] for camera in cameras], dim=1) for e in episodes]
        starts = [Task(e.id, e.instruction, e.frames_TVHWC[:1], cameras=e.cameras) for e in episodes]
        state = self._world.reset(starts, generator=seeded_generator(self.config.seed, "replay", number))
        steps = [
            self._world.step(state, part).frames_BLVHWC.cpu() for part in actions_BTA.split(self.config.chunk, dim=1)
        ]
        frames_BTVHWC = torch.cat([torch.stack(first), *steps], dim=1)
        return [
            replace(
                episode,
                frames_TVHWC=frames_BTVHWC[row, : lengths[row] + 1].clone(),
                cameras=cameras,
                proprio_TP=None,
            )
            for row, episode in enumerate(episodes)
        ]
