"""Imagine: roll a policy out in a world (learned or simulated)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import cast

import torch
from torch import Tensor

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.frames import EpisodeFrames, Undecoded
from gymnast_core.interfaces import Policy, WorldModel
from gymnast_core.rollouts.answers import check_finite, checked_chunk
from gymnast_core.rollouts.side_by_side import Stopped
from gymnast_core.rollouts.sight import Sight, find_sight
from gymnast_core.rollouts.steps import check_readings, checked_step, ended_after, most_episodes
from gymnast_core.types import ActionChunk, Observation, Rollout, Step, Task


@torch.no_grad()
def imagine(
    policy: Policy,
    world_model: WorldModel,
    tasks: Sequence[Task],
    *,
    horizon: int,
    temperature: float,
    generator: torch.Generator,
    groups: Sequence[int] | None = None,
    batch_size: int = 256,
    version: int = 0,
    stop: Event | None = None,
) -> list[Rollout]:
    """One rollout of `horizon` actions per task, in order; each owns its memory.

    `temperature` 0 takes the most likely actions. `groups[i]` labels rollout i (default: its index). At most
    `batch_size` episodes are alive at once, and no more than the world takes (`most_episodes`). All randomness comes
    from `generator`. `version` is the number of gradient steps behind the policy. Raises `ConfigError` if the horizon
    is not a multiple of the policy's chunk length, or if the policy needs what the world does not show; `ContractError`
    that names the policy or the world whose answer is of another form than its contract says; `Stopped` within a
    decision after another thread has set `stop`.
    """
    check_horizon(policy, horizon)
    labels = range(len(tasks)) if groups is None else groups
    rollouts: list[Rollout] = []
    most = most_episodes(world_model, tasks)
    together = batch_size if most is None else min(batch_size, most)
    for first in range(0, len(tasks), together):
        batch = tasks[first : first + together]
        episodes = _played(policy, world_model, batch, horizon, temperature, generator, stop)
        played = episodes.rollouts(labels[first : first + len(batch)], temperature, version)
        check_finite(policy, played)
        check_readings(world_model, played)
        rollouts += played
    return rollouts


def _played(
    policy: Policy,
    world_model: WorldModel,
    tasks: Sequence[Task],
    horizon: int,
    temperature: float,
    generator: torch.Generator,
    stop: Event | None,
) -> "_Episodes":
    """One batch of episodes. The world's state ends with it, before the next batch begins."""
    episodes = _Episodes(tasks, sight_of(policy, world_model, tasks))
    state = world_model.reset(tasks, generator=generator)
    for _ in range(horizon // policy.chunk_length):
        if stop is not None and stop.is_set():
            raise Stopped
        chunk = policy.act(episodes.observe(), temperature=temperature, generator=generator)
        chunk = checked_chunk(policy, chunk, len(tasks))
        step = world_model.step(state, chunk.actions_BLA)
        episodes.add(chunk, checked_step(world_model, step, chunk.actions_BLA, *episodes.picture))
    return episodes


def check_horizon(policy: Policy, horizon: int, key: str = "loop.horizon") -> None:
    """Raises `ConfigError` if the horizon is not a multiple of the policy's chunk length."""
    if horizon % policy.chunk_length:
        raise ConfigError(
            f"A horizon of {horizon} actions is not a multiple of the policy's chunk length {policy.chunk_length}; "
            f"set {key}={horizon // policy.chunk_length * policy.chunk_length or policy.chunk_length}."
        )


def sight_of(policy: Policy, world_model: WorldModel, tasks: Sequence[Task]) -> Sight:
    """How the policy sees these tasks in this world. Raises `ConfigError` if they do not fit, `DataError` if the tasks
    show different cameras."""
    for task in tasks:
        if task.cameras != tasks[0].cameras:
            raise DataError(
                f"The tasks {tasks[0].id!r} and {task.id!r} of one batch show different cameras: "
                f"{', '.join(tasks[0].cameras)} and {', '.join(task.cameras)}."
            )
    return find_sight(policy.needed, world_model.offers(world_model.config), tasks[0])


@dataclass
class _Episodes:
    """B episodes under way: what was shown and done, and what the policy still remembers of it."""

    tasks: Sequence[Task]
    sight: Sight
    chunks: list[ActionChunk] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    looked_at: dict[int, Tensor] = field(default_factory=dict)
    """Pictures (B, V, H, W, 3) of frames that are undecoded, by their places in the episodes."""

    def __post_init__(self) -> None:
        starts = [self.sight.start(task) for task in self.tasks]
        readings = [proprio_TP for _, proprio_TP in starts if proprio_TP is not None]
        self._frames_BTVHWC = torch.stack([frames_TVHWC for frames_TVHWC, _ in starts])
        self._proprio_BTP = torch.stack(readings) if len(readings) == len(starts) else None
        self._start_BVHWC = self._frames_BTVHWC[:, -1]
        self._start_BP = None if self._proprio_BTP is None else self._proprio_BTP[:, -1]
        self._instructions = tuple(task.instruction for task in self.tasks)

    @property
    def picture(self) -> tuple[int, int, int]:
        """Views, height and width of the frames that they begin with."""
        views, height, width = self._start_BVHWC.shape[1:4]
        return views, height, width

    def observe(self) -> Observation:
        """What the policy is shown now: its own copy, since what it were to write there would become the episode's."""
        proprio_BTP = None if self._proprio_BTP is None else self._proprio_BTP.clone()
        return self.sight.observe(self._frames_BTVHWC.clone(), proprio_BTP, self._instructions)

    def add(self, chunk: ActionChunk, step: Step) -> None:
        """One decision and what the world showed after it; of undecoded frames, the policy looks at the last ones."""
        history, later = self.sight.history, step.undecoded
        if later is None:
            shown_BLVHWC = step.frames_BLVHWC.cpu()
        else:
            length = later.latents_BLX.shape[1]
            end = 1 + length + sum(chunk.actions_BLA.shape[1] for chunk in self.chunks)
            latest = range(-min(history, length), 0)
            shown_BLVHWC = later.at(latest).cpu()
            self.looked_at |= {end + place: shown_BLVHWC[:, place] for place in latest}
        frames = shown_BLVHWC if later is None else later
        step = Step.showing(frames, _cpu(step.proprio_BLP), _cpu(step.outcome_BL), step.errors, _cpu(step.ended_BL))
        self.chunks.append(chunk)
        self.steps.append(step)
        self._frames_BTVHWC = torch.cat([self._frames_BTVHWC, shown_BLVHWC], dim=1)[:, -history:]
        if self._proprio_BTP is None or step.proprio_BLP is None:
            self._proprio_BTP = None
        else:
            self._proprio_BTP = torch.cat([self._proprio_BTP, step.proprio_BLP], dim=1)[:, -history:]

    def rollouts(self, labels: Sequence[int], temperature: float, version: int) -> list[Rollout]:
        """Each episode, cut out of the batch."""
        actions_BNLA = torch.stack([chunk.actions_BLA for chunk in self.chunks], dim=1).cpu()
        log_prob_BNLD = torch.stack([chunk.log_prob_BLD for chunk in self.chunks], dim=1).cpu()
        tokens = [chunk.tokens_BLD for chunk in self.chunks if chunk.tokens_BLD is not None]
        tokens_BNLD = torch.stack(tokens, dim=1).cpu() if tokens else None
        later = self._undecoded()
        return [
            Rollout(
                task=task,
                group=labels[row],
                frames_TVHWC=self._shown(row, later),
                actions_NLA=actions_BNLA[row].clone(),
                log_prob_NLD=log_prob_BNLD[row].clone(),
                temperature=temperature,
                cameras=self.sight.cameras,
                tokens_NLD=None if tokens_BNLD is None else tokens_BNLD[row].clone(),
                proprio_TP=self._proprio(row),
                outcome_S=_joined([None if s.outcome_BL is None else s.outcome_BL[row] for s in self.steps]),
                version=version,
                error=next((s.errors[row] for s in self.steps if s.errors is not None and s.errors[row]), None),
                ended_after=self._ended_after(row),
            )
            for row, task in enumerate(self.tasks)
        ]

    def _ended_after(self, row: int) -> int | None:
        """Actions of an episode until the world ended it."""
        done = 0
        for chunk, step in zip(self.chunks, self.steps, strict=True):
            within = None if step.ended_BL is None else ended_after(step.ended_BL[row])
            if within is not None:
                return done + within
            done += chunk.actions_BLA.shape[1]
        return None

    def _undecoded(self) -> Undecoded | None:
        """All frames after the first, in main memory, where there are no pictures of them."""
        later = [step.undecoded for step in self.steps]
        known = [one for one in later if one is not None]
        if not known or len(known) < len(later):
            return None
        return Undecoded(torch.cat([one.latents_BLX for one in known], dim=1).cpu(), known[0].decode)

    def _shown(self, row: int, later: Undecoded | None) -> Tensor:
        """The frames of one episode, or those that the policy saw and how to make the others."""
        if later is None:
            return torch.cat([self._start_BVHWC[row, None], *(step.frames_BLVHWC[row] for step in self.steps)])
        own = Undecoded(later.latents_BLX[row, None].clone(), later.decode)
        seen = {place: pictures_BVHWC[row].clone() for place, pictures_BVHWC in self.looked_at.items()}
        return cast(Tensor, EpisodeFrames(self._start_BVHWC[row].clone(), own, seen))

    def _proprio(self, row: int) -> Tensor | None:
        start_1P = None if self._start_BP is None else self._start_BP[row, None]
        return _joined([start_1P, *(None if s.proprio_BLP is None else s.proprio_BLP[row] for s in self.steps)])


def _cpu(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.cpu()


def _joined(pieces: Sequence[Tensor | None]) -> Tensor | None:
    known = [piece for piece in pieces if piece is not None]
    return torch.cat(known) if known and len(known) == len(pieces) else None
