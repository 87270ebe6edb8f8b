"""One batch of a gate's measurement: the policy in the environment and in imagination, and the one held against the
other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gymnast_core.interfaces import Parts
from gymnast_core.money import total_usd
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.seeds import seeded_generator
from gymnast_core.training.judge import judge
from gymnast_core.training.tasks import family_of
from gymnast_core.types import Episode, Reward, Rollout, Task
from gymnast_gate.config import GateConfig
from gymnast_gate.options import Config
from gymnast_gate.pixels import Sums, errors_of
from gymnast_gate.playback import OwnNoise, play_back
from gymnast_gate.rows import Row
from gymnast_gate.strips import draw_strip
from gymnast_gate.truth import Auditor, Environment, Truth, succeeded


@dataclass(frozen=True)
class Measured:
    """The rollouts of one batch; what was not made is empty."""

    imagined: Sequence[Rollout]
    rewards: Sequence[Reward]
    truths: Sequence[Truth]
    real: Sequence[Truth]
    open_loop: Sequence[Rollout]
    """The world model under the actions of `real`."""
    shuffled: Sequence[Rollout]
    """And under those of the next episode."""


class Measurement:
    """Measures batches of tasks."""

    def __init__(
        self, config: GateConfig, options: Config, parts: Parts, truth: Environment | Auditor,
        environment: Environment | None, folder: Path,
    ) -> None:  # fmt: skip
        self._config, self._options, self._parts, self._folder = config, options, parts, folder
        self._truth, self._environment = truth, environment

    def measure(self, tasks: Sequence[Task], first: int, *, whole: bool, drawn: int) -> list[Row]:
        """The rows of tasks, of which the first has the number `first`.

        `whole` asks for everything, otherwise for what the judge's gate needs. All noise comes from the seed and
        `first`. `drawn` strips of open loops were made before.
        """
        found = self._roll_out(tasks, first, whole)
        mistakes = self._mistakes(found)
        rows = []
        for i, task in enumerate(tasks):
            wanted = whole and len(found.open_loop) > 0 and drawn + i < self._config.gate.examples
            strips = self._strips(first + i, i, found, frames=wanted, mistake=mistakes.get(i))
            rows.append(self._row(task, first + i, i, found, strips))
        return rows

    def _roll_out(self, tasks: Sequence[Task], first: int, whole: bool) -> Measured:
        policy, world, reward_model = self._parts.policy, self._parts.world_model, self._parts.reward_model
        assert policy is not None and world is not None and reward_model is not None
        seed, loop = self._config.seed, self._config.loop

        def acting(in_world: str, of: object) -> list[Rollout]:
            # The same noise of the policy in both worlds, so that only the worlds differ.
            same = OwnNoise(policy, seeded_generator(seed, "gate", "policy", first))
            return imagine(
                same, of, tasks, horizon=loop.horizon, temperature=loop.temperature, batch_size=len(tasks),  # type: ignore[arg-type]
                generator=seeded_generator(seed, "gate", in_world, first), groups=range(first, first + len(tasks)),
            )  # fmt: skip

        imagined = acting("world model", world)
        rewards = judge(reward_model, imagined, again=loop.rescore)
        truths = self._truth.of(imagined, policy)
        real: list[Truth] = []
        open_loop: list[Rollout] = []
        shuffled: list[Rollout] = []
        if whole and self._environment is not None:
            real = self._environment.judged(acting("environment", self._environment.world))
            actions = [rollout.actions_NLA for rollout in (truth.real for truth in real) if rollout is not None]
            open_loop, shuffled = self._open_loop(actions, tasks, first)
        return Measured(imagined, rewards, truths, real, open_loop, shuffled)

    def _open_loop(
        self, actions: Sequence[Tensor], tasks: Sequence[Task], first: int
    ) -> tuple[list[Rollout], list[Rollout]]:
        """The world model under given actions, and under those of the next episode."""
        policy, world = self._parts.policy, self._parts.world_model
        assert policy is not None and world is not None

        def play(which: Sequence[Tensor], label: str) -> list[Rollout]:
            generator = seeded_generator(self._config.seed, "gate", label, first)
            return play_back(which, tasks, world, policy, generator=generator, batch_size=len(tasks))

        others = [*actions[1:], actions[0]]
        return play(actions, "open loop"), play(others, "shuffled") if len(tasks) > 1 else []

    def recorded(self, episodes: Sequence[Episode], first: int, most_actions: int) -> list[Sums]:
        """The errors of the world model on recorded episodes, in open loop over `most_actions` at most."""
        tasks = [
            Task(item.id, item.instruction, item.frames_TVHWC[:1], item.cameras,
                 proprio_TP=None if item.proprio_TP is None else item.proprio_TP[:1])
            for item in episodes
        ]  # fmt: skip
        policy = self._parts.policy
        assert policy is not None
        length = policy.chunk_length
        count = min(most_actions, self._config.loop.horizon) // length * length
        actions = [item.actions_TA[:count].unflatten(0, (-1, length)) for item in episodes]
        open_loop, shuffled = self._open_loop(actions, tasks, first)
        return [
            errors_of(
                item.frames_TVHWC[: count + 1], open_loop[i].frames_TVHWC,
                shuffled[i].frames_TVHWC if shuffled else None, self._config.gate.changed_levels,
            )
            for i, item in enumerate(episodes)
        ]  # fmt: skip

    def _row(self, task: Task, index: int, i: int, found: Measured, strips: dict[str, str]) -> Row:
        reward, truth = found.rewards[i], found.truths[i]
        real = found.real[i] if found.real else None
        errors = [f"judge: {reward.error}"] if reward.error else []
        errors += [f"truth: {truth.error}"] if truth.error else []
        errors += [f"environment: {real.error}"] if real is not None and real.error else []
        costs = [reward.cost_usd, truth.cost_usd, 0.0 if real is None else real.cost_usd]
        return Row(
            index=index, task=task.id, instruction=task.instruction, group=family_of(task, self._options.by),
            real=None if real is None else real.success, judged=succeeded(reward), probability=reward.partial,
            true=truth.success, errors=errors, cost_usd=total_usd(costs), pixels=self._pixels(i, found), strips=strips,
        )  # fmt: skip

    def _pixels(self, i: int, found: Measured) -> dict[str, list[float]] | None:
        real = found.real[i].real if found.real else None
        if real is None or not found.open_loop or real.error or found.open_loop[i].error:
            return None
        shuffled = found.shuffled[i].frames_TVHWC if found.shuffled else None
        model = found.open_loop[i].frames_TVHWC
        levels = self._config.gate.changed_levels
        return dict(errors_of(real.frames_TVHWC, model, shuffled, levels, real.ended_after))

    def _mistakes(self, found: Measured) -> dict[int, str]:
        """The judge's mistakes that are shown: of each kind those that it was surest of."""
        kinds: dict[str, list[tuple[float, int]]] = {"false alarm": [], "miss": []}
        for i, (reward, truth) in enumerate(zip(found.rewards, found.truths, strict=True)):
            judged = succeeded(reward)
            if judged is None or truth.success is None or judged == truth.success:
                continue
            sureness = 0.0 if reward.partial is None else abs(reward.partial - truth.success)
            kinds["false alarm" if judged else "miss"].append((-sureness, i))
        shown = self._config.gate.examples
        return {i: kind for kind, mistakes in kinds.items() for _, i in sorted(mistakes)[:shown]}

    def _strips(self, index: int, i: int, found: Measured, *, frames: bool, mistake: str | None) -> dict[str, str]:
        """The film strips of a rollout: of the open loop, and of a mistake of the judge."""
        strips = {}
        real = found.real[i].real if found.real else None
        if frames and real is not None:
            rows = [("real", real.frames_TVHWC), ("imagined, the same actions", found.open_loop[i].frames_TVHWC)]
            strips["frames"] = draw_strip(self._folder, "frames", index, rows)
        if mistake is not None:
            truth = found.truths[i]
            said = "success" if succeeded(found.rewards[i]) else "failure"
            rows = [(f"imagined, judged a {said}", found.imagined[i].frames_TVHWC)]
            if truth.real is not None:
                outcome = "success" if truth.success else "failure"
                rows.append((f"real, the same actions: {outcome}", truth.real.frames_TVHWC))
            strips[mistake] = draw_strip(self._folder, mistake, index, rows)
        return strips
