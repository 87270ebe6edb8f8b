"""Tasks that begin where recorded episodes do, or in their middle."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Count, NotNegative, Seed
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Dataset
from gymnast_core.plugins.compose import registries
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Episode, Task
from gymnast_episodes.crops import Lazy

log = logging.getLogger(__name__)


class EpisodeStarts(Dataset):
    """Each episode's instruction with its first frame, or with a keyframe and frames before it (arXiv 2602.13977).

    With `branches`, policies start anywhere in the episodes, for short imagined rollouts from real states (branched
    rollouts: VLA-MBPO, arXiv 2603.20607; Janner et al., arXiv 1906.08253).

    Reading a first frame takes a whole episode, unless `episodes` gives crops: window: 2, crops: first. Crops are for
    tasks that begin at an episode's first frame: `keyframe` and `branches` count in the crop (which is said when they
    are read), and `expert` refuses crops.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        episodes: ComponentConfig
        """Any dataset of episodes: {name, args}."""
        keyframe: NotNegative | None = None
        """Frame where the policy starts: below 1 a fraction of the episode, from 1 on a frame's number, counted from
        0; null starts at the first frame."""
        branches: Count | None = None
        """Starts in each episode, at frames drawn by `seed`; instead of a keyframe."""
        actions_left: Count = 1
        """Actions that were still taken after a drawn start, at least."""
        seed: Seed = 0
        """Of the drawn starts."""
        context: Count = 1
        """Frames that a start in an episode's midst shows: its own alone, or the first frame and the last `context` - 1
        up to its own (fewer where the episode has fewer)."""
        partial_credit_criteria: str | None = None
        """What counts as half a success, for judges that give partial credit."""
        expert: bool = False
        """Whether a task carries the rest of its episode, for rewards that compare with it (`verified`). Episodes that
        are known to have failed are no expert's. Needs whole episodes: a crop shows neither what the expert did next
        nor whether it succeeded."""

    def __init__(self, config: Config) -> None:
        keyframe = config.keyframe
        if keyframe is not None and keyframe >= 1 and keyframe != int(keyframe):
            raise ConfigError(f"keyframe is {keyframe}; give a fraction below 1, or the number of a frame.")
        if keyframe is not None and config.branches is not None:
            raise ConfigError("keyframe says where episodes start, and branches draws it: give one of them.")
        if config.context > 1 and keyframe is None and config.branches is None:
            raise ConfigError(f"context is {config.context}; it is more than 1 only with a keyframe or branches.")
        if config.actions_left > 1 and config.branches is None:
            raise ConfigError(f"actions_left is {config.actions_left}; it is of drawn starts: set branches, too.")
        self.config = config
        self._dataset = registries().datasets.build(config.episodes.name, config.episodes.args, key="episodes")

    def tasks(self) -> Sequence[Task]:
        """Raises `ConfigError` for experts of crops."""
        self._episodes = self._dataset.episodes()
        if getattr(self._episodes, "cropped", False):
            self._check_crops()
        tasks = Lazy(len(self._episodes) * (self.config.branches or 1), self._task)
        tasks.origin = getattr(self._episodes, "origin", None)
        ids, frames = (getattr(self._episodes, name, None) for name in ("ids", "frames"))
        if ids is not None and frames is not None:
            tasks.ids = Lazy(len(tasks), partial(self._known_id, ids, frames))
        return tasks

    def _check_crops(self) -> None:
        """Crops hold one start each; what needs the rest of the episode is refused, or told."""
        source = self.config.episodes.name
        if self.config.expert:
            raise ConfigError(
                f"expert: the episodes of {source!r} are crops, and an expert's actions would end with the crop, "
                "whether or not it succeeded later. Leave window and crops out of episodes.args; branches starts "
                "anywhere in whole episodes."
            )
        option = "keyframe" if self.config.keyframe is not None else "branches"
        if getattr(self.config, option) is not None:
            log.warning(
                "episode-starts: the episodes of %r are crops, and %s counts frames of the crop, not of its episode. "
                "Leave window and crops out of episodes.args to start anywhere in whole episodes.", source, option,
            )  # fmt: skip

    def _known_id(self, ids: Sequence[str], frames: int | Sequence[int], index: int) -> str:
        """The id of a task, from the id and length of its episode alone."""
        number, branch = divmod(index, self.config.branches or 1)
        count = frames if isinstance(frames, int) else frames[number]
        return self._id(ids[number], branch, self._context(ids[number], count, branch)[-1])

    def _task(self, index: int) -> Task:
        number, branch = divmod(index, self.config.branches or 1)
        episode = self._episodes[number]
        shown = self._context(episode.id, len(episode.frames_TVHWC), branch)
        # An action leads to every frame but the first; for the one after a gap it is the real one, too.
        actions_TA = episode.actions_TA[[i - 1 for i in shown[1:]]] if len(shown) > 1 else None
        return Task(
            id=self._id(episode.id, branch, shown[-1]),
            instruction=episode.instruction,
            frames_TVHWC=episode.frames_TVHWC[shown],
            cameras=episode.cameras,
            proprio_TP=None if episode.proprio_TP is None else episode.proprio_TP[shown],
            actions_TA=actions_TA,
            start=episode.start if shown == [0] else None,
            partial_credit_criteria=self.config.partial_credit_criteria,
            expert=_rest(episode, shown[-1]) if self.config.expert else None,
        )

    def _id(self, episode: str, branch: int, start: int) -> str:
        if self.config.branches is not None:
            return f"{episode}@{start}#{branch}"  # the same frame may be drawn twice
        return episode if self.config.keyframe is None else f"{episode}@{start}"

    def _context(self, episode: str, frames: int, branch: int) -> list[int]:
        """Numbers of the context frames, the last one being where the policy starts, in an episode of that id."""
        keyframe = self.config.keyframe
        if self.config.branches is not None:
            last = self._drawn(episode, frames, branch)
        elif keyframe is None:
            return [0]
        else:
            last = int(keyframe) if keyframe >= 1 else round(keyframe * (frames - 1))
        if last >= frames:
            raise DataError(
                f"Episode {episode!r} has {frames} frames, no frame {last}. Give the keyframe as a fraction below 1."
            )
        if self.config.context == 1:
            return [last]
        return [0, *range(max(last - self.config.context + 2, 1), last + 1)]

    def _drawn(self, episode: str, frames: int, branch: int) -> int:
        """A frame with `actions_left` actions after it and, so that all starts show equally much, a context before."""
        least = self.config.context - 1
        choices = frames - self.config.actions_left - least
        if choices < 1:
            raise DataError(
                f"Episode {episode!r} has {frames} frames, too few for {self.config.actions_left} actions after a "
                f"start and {least} frames before it. Lower actions_left or context, or leave such episodes out."
            )
        generator = seeded_generator(self.config.seed, f"branch/{episode}/{branch}")
        return least + int(torch.randint(choices, (1,), generator=generator))


def _rest(episode: Episode, start: int) -> Episode | None:
    """The episode from a frame on; None if it is known to have failed, or nothing comes after."""
    if episode.success is False or start >= len(episode.actions_TA):
        return None
    return replace(
        episode,
        frames_TVHWC=episode.frames_TVHWC[start:],
        actions_TA=episode.actions_TA[start:],
        proprio_TP=None if episode.proprio_TP is None else episode.proprio_TP[start:],
        points_TJ2=None if episode.points_TJ2 is None else episode.points_TJ2[start:],
        start=None,
    )
