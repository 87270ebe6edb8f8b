"""What a policy does in a world model, as episodes under labels that are true of its actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Count, NotNegative, Positive, Seed
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Dataset, Parts
from gymnast_core.plugins.compose import registries
from gymnast_core.rollouts.imagine import check_horizon, imagine
from gymnast_core.seeds import seeded_generator
from gymnast_core.success import is_success, success_of
from gymnast_core.training.judge import judge
from gymnast_core.types import Episode, Reward, Rollout, Task
from gymnast_episodes.crops import Lazy, by_batches


class ImaginedEpisodes(Dataset):
    """A policy's rollouts in a world model, each labelled by what its actions do elsewhere: where an environment
    stands behind the tasks, by the success of the same actions there.

    In a training in imagination a judge sees frames of actions that were chosen because of imagined frames. Those lead
    where recordings never were, and the judge errs most where the world model does. Fitted to such rollouts under true
    labels it learns which of them not to believe (on-policy data for the reward model; cf. the rounds of World-Gymnast,
    arXiv 2602.02454). `gymnast convert` keeps them, so that each is imagined and executed once:

        gymnast convert imagined-episodes data/on-policy --fps 10
            policy='{name: openvla-oft, args: {checkpoint: POLICY}}'
            world_model='{name: worldgym, args: {checkpoint: WORLD}}'
            tasks='{name: environment-tasks, args: {environments: [...]}}' horizon=24
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        tasks: ComponentConfig
        """Where it starts and what for, a dataset of tasks: {name, args}. One rollout a task."""
        policy: ComponentConfig
        """Who acts: {name, args}."""
        world_model: ComponentConfig
        """In what: {name, args}."""
        horizon: Count
        """Actions of a rollout, a multiple of the policy's chunk length."""
        truth: ComponentConfig = field(default_factory=lambda: ComponentConfig("environment", {"always_replay": True}))
        """Who says what is a success: a reward model, {name, args}. Without one, the actions are executed in the
        environment behind the tasks."""
        temperature: NotNegative = 1.0
        """Of the policy's actions; 0 takes the most likely ones."""
        batch_size: Count = 64
        """Rollouts imagined together; they are kept until another batch is asked for."""
        fps: Positive | None = None
        """Actions a second, where somebody knows."""
        seed: Seed = 0
        """Of actions and imagination, drawn anew for each batch."""
        skip_bad: bool = True
        """Whether `gymnast convert` leaves out, with a warning each, what could not be imagined or labelled: an
        environment crashed, a judge failed twice. false: the first one ends it. Whoever indexes such an episode gets an
        error."""

    def __init__(self, config: Config) -> None:
        self.config, known = config, registries()
        self._tasks = known.datasets.build(config.tasks.name, config.tasks.args, key="tasks").tasks()
        self._policy = known.policies.build(config.policy.name, config.policy.args, key="policy").eval()
        check_horizon(self._policy, config.horizon, key="horizon")
        world, truth = config.world_model, config.truth
        self._world = known.world_models.build(world.name, world.args, key="world_model")
        self._truth = known.reward_models.build(truth.name, truth.args, key="truth")
        Parts(policy=self._policy, world_model=self._world, reward_model=self._truth, tasks=self._tasks).attach()

    def episodes(self) -> Sequence[Episode]:
        made = by_batches(
            len(self._tasks), self.config.batch_size, lambda number, part: self._made(self._tasks[part], number),
            "imagined-episodes",
        )  # fmt: skip

        def good(index: int) -> Episode:
            found = made[index]
            if isinstance(found, Episode):
                return found
            raise DataError(found)

        episodes = Lazy(len(self._tasks), good)
        episodes.unchecked = self.config.skip_bad
        episodes.ids = getattr(self._tasks, "ids", None)
        return episodes

    def _made(self, tasks: Sequence[Task], number: int) -> list[Episode | str]:
        """The batch of that number; in the place of an episode that there is not, why."""
        rollouts = imagine(
            self._policy, self._world, tasks, horizon=self.config.horizon, temperature=self.config.temperature,
            generator=seeded_generator(self.config.seed, "imagined episodes", number), batch_size=len(tasks),
        )  # fmt: skip
        rewards = judge(self._truth, rollouts, again=1)
        return [self._episode(rollout, reward) for rollout, reward in zip(rollouts, rewards, strict=True)]

    def _episode(self, rollout: Rollout, reward: Reward) -> Episode | str:
        task = rollout.task
        if (success := success_of(reward)) is None:
            return f"Nobody knows whether {task.id!r} is a success: {reward.error}"
        return Episode(
            task.id, task.instruction, rollout.frames_TVHWC, rollout.actions_NLA.flatten(0, 1), rollout.cameras,
            fps=self.config.fps, success=is_success(success),
        )  # fmt: skip
