"""Seconds of one iteration of reinforcement learning by part, on any number of GPUs.

Every GPU makes, judges and learns from its own groups; then gradients are added up. So the slowest one counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from gymnast_core.errors import GymnastError
from gymnast_core.training.record import SNAPSHOT_SHARE
from gymnast_plan.hardware import Hardware
from gymnast_plan.work import Work, add

PARTS = ("imagine", "decode", "act", "judge", "update", "snapshot", "transfer")
GPUS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Judging:
    """A judge that answers requests."""

    seconds: float
    """Until an answer is there."""
    requests: float = 1.0
    """A rollout."""
    together: int = 1
    """Requests under way at once, of each process."""
    per_minute: float = math.inf
    """Requests that the service takes from all processes."""

    def busy(self, rollouts: int, processes: int) -> float:
        """Seconds for so many rollouts of one process."""
        requests = rollouts * self.requests
        waves = math.ceil(requests / self.together) * self.seconds
        return max(waves, 60 * requests * processes / self.per_minute)


@dataclass(frozen=True)
class Iteration:
    """What an iteration consists of. Works are of one process; those of worlds are of whole episodes."""

    groups: int
    group_size: int
    together: int
    """Episodes imagined at once, at most."""
    decisions: int
    """An episode."""
    minibatch: int
    """Rollouts a gradient step, of all processes."""
    micro: int
    """Rollouts whose gradient is computed at once."""
    epochs: int
    world: Callable[[int], Mapping[str, Work]]
    """"imagine" and "decode" for so many episodes; empty where the world does not say."""
    act: Callable[[int], Work]
    """One decision in so many episodes."""
    update: Callable[[int], Work]
    """The gradient of so many rollouts."""
    step: Work
    """What a gradient step takes beside its gradient."""
    judging: Judging | None = None
    """None: a judge that takes no time, or whose time is unknown."""
    gradient_bytes: int = 0
    """Added up between GPUs at every gradient step."""
    frame_bytes: int = 0
    """Of a rollout's frames; they leave the device when they are imagined, and come back to be learned from."""
    snapshot_bytes: int = 0
    snapshot_every: int | None = None
    """Iterations between snapshots; None: as many as `snapshot_share` of the time allows."""
    snapshot_share: float = SNAPSHOT_SHARE


@dataclass(frozen=True)
class Forecast:
    """Seconds of an iteration."""

    gpus: int
    parts: Mapping[str, float]
    """By `PARTS`: of the slowest process; what is hidden behind other work does not count."""
    idle: int = 0
    """GPUs without a group of their own."""

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def bottleneck(self) -> str:
        """The part that takes most."""
        return max(self.parts, key=lambda name: self.parts[name])


@dataclass(frozen=True)
class Change:
    """Something that the user may change."""

    setting: str
    effect: str
    """What it does beside saving time; "" for nothing."""
    parts: tuple[str, ...]
    """Which it shortens."""
    changed: Callable[[], Iteration]


def forecast(iteration: Iteration, hardware: Hardware, gpus: int = 1) -> Forecast:
    """How long an iteration takes on so many GPUs of this kind."""
    batches = dealt(iteration, gpus)
    rollouts = sum(batches)
    made = {size: _made(iteration, hardware, size) for size in set(batches)}
    parts = dict.fromkeys(PARTS, 0.0)
    for size in batches:
        for name, seconds in made[size].items():
            parts[name] += seconds
    parts["judge"] = _unhidden(iteration.judging, batches, [sum(made[size].values()) for size in batches], gpus)
    total = iteration.groups * iteration.group_size
    steps = iteration.epochs * math.ceil(total / iteration.minibatch)
    share, rest = divmod(math.ceil(rollouts / math.ceil(total / iteration.minibatch)), iteration.micro)
    pieces = [iteration.micro] * share + ([rest] if rest else [])
    learned = {size: hardware.seconds(iteration.update(size)) for size in set(pieces)}
    parts["update"] = steps * (sum(learned[size] for size in pieces) + hardware.seconds(iteration.step))
    parts["transfer"] = steps * _reduced(iteration.gradient_bytes, hardware, gpus)
    parts["transfer"] += rollouts * iteration.frame_bytes * (1 + iteration.epochs) / hardware.host_link
    parts["snapshot"] = _snapshot(iteration, hardware, sum(parts.values()))
    return Forecast(gpus, parts, max(0, gpus - iteration.groups))


def dealt(iteration: Iteration, gpus: int) -> list[int]:
    """Episodes of the batches that the GPU with most of them imagines, one after the other. Batches are as small as it
    takes to give every GPU one."""
    size, groups = iteration.group_size, iteration.groups
    each = min(max(iteration.together // size, 1), math.ceil(groups / gpus))
    deals = [min(each, groups - first) for first in range(0, groups, each)][::gpus]
    episodes = [size * count for count in deals]
    return [min(iteration.together, n - first) for n in episodes for first in range(0, n, iteration.together)]


def next_change(
    iteration: Iteration, hardware: Hardware, gpus: int, changes: Iterable[Change]
) -> tuple[Change, Forecast] | None:
    """What saves most of those that shorten the bottleneck, and the forecast after it; None if nothing saves a
    hundredth."""
    now = forecast(iteration, hardware, gpus)
    found = []
    for change in changes:
        if now.bottleneck in change.parts:
            with suppress(GymnastError):  # what the run's parts refuse is no change
                found.append((change, forecast(change.changed(), hardware, gpus)))
    best = min(found, key=lambda pair: pair[1].total, default=None)
    return best if best is not None and best[1].total < 0.99 * now.total else None


def whole_work(iteration: Iteration) -> Work:
    """All work of an iteration in one process, for a measurement to know what matters."""
    found: Work = {}
    for size in dealt(iteration, 1):
        for work in iteration.world(size).values():
            add(found, work)
        add(found, iteration.act(size), iteration.decisions)
    rollouts = iteration.groups * iteration.group_size
    steps = iteration.epochs * math.ceil(rollouts / iteration.minibatch)
    pieces = iteration.epochs * rollouts / iteration.micro
    add(found, iteration.update(min(rollouts, iteration.minibatch, iteration.micro)), pieces)
    add(found, iteration.step, steps)
    return found


def _made(iteration: Iteration, hardware: Hardware, size: int) -> dict[str, float]:
    """Seconds of imagining one batch, by part."""
    found = {name: hardware.seconds(work) for name, work in iteration.world(size).items()}
    return {**found, "act": iteration.decisions * hardware.seconds(iteration.act(size))}


def _unhidden(judging: Judging | None, batches: Sequence[int], seconds: Sequence[float], gpus: int) -> float:
    """What one waits for the judge when the last batch is imagined: it works on each while the next is imagined."""
    if judging is None:
        return 0.0
    imagined = free = 0.0
    for size, took in zip(batches, seconds, strict=True):
        imagined += took
        free = max(free, imagined) + judging.busy(size, gpus)
    return free - imagined


def _reduced(size: int, hardware: Hardware, gpus: int) -> float:
    """Adding up so many bytes in a ring: each GPU sends and receives 2 (n - 1) / n of them."""
    return 2 * (gpus - 1) / gpus * size / hardware.link(gpus)


def _snapshot(iteration: Iteration, hardware: Hardware, rest: float) -> float:
    """An iteration's share of writing them."""
    whole = iteration.snapshot_bytes / hardware.disk
    if iteration.snapshot_every is not None:
        return whole / iteration.snapshot_every
    return min(whole, iteration.snapshot_share / (1 - iteration.snapshot_share) * rest)
