"""What an iteration learns from: draw tasks, imagine, judge, keep groups with a signal, until there are enough."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from gymnast_core.config.schema import LoopConfig
from gymnast_core.interfaces import Optimizer, Policy, RewardModel, WorldModel
from gymnast_core.learning import Judged
from gymnast_core.processes import Processes
from gymnast_core.rollouts.deal import Deal, Group, deals
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.rollouts.state import reward_from_state, rollout_from_state, to_state
from gymnast_core.seeds import seeded_generator
from gymnast_core.training.judge import judge, refuse_failures, submit
from gymnast_core.training.tally import Tally
from gymnast_core.training.tasks import TaskOrder
from gymnast_core.types import Metric, Reward, Rollout


class Listener(Protocol):
    """Who is told what was collected."""

    def imagined(self, rollouts: Sequence[Rollout]) -> None: ...

    def judged(self, rollouts: Sequence[Rollout], rewards: Sequence[Reward]) -> None: ...


class Collector:
    """Makes groups of judged rollouts. Those that an iteration has no room for wait for the next one."""

    def __init__(
        self,
        policy: Policy,
        world_model: WorldModel,
        reward_model: RewardModel,
        optimizer: Optimizer,
        order: TaskOrder,
        loop: LoopConfig,
        seed: int,
        processes: Processes,
    ) -> None:
        self._policy, self._world_model, self._reward_model = policy, world_model, reward_model
        self._optimizer, self._order, self._loop, self._seed = optimizer, order, loop, seed
        self._processes = processes
        self.waiting: list[Group] = []
        """Groups of this process that were kept and not yet learned from."""

    def collect(self, iteration: int, version: int, tally: Tally, listener: Listener) -> list[Group]:
        """This process's share of the groups that iteration `iteration` learns from, by label.

        `version` counts the gradient steps behind the policy. Raises `RewardsFailing`, and `NothingLeft` if every task
        was left out.
        """
        wanted = self._loop.groups_per_update or self._loop.tasks_per_iteration
        kept, self.waiting = self.waiting, []
        everywhere = self._labels(kept)
        for draw in range(self._loop.max_draws):
            if len(everywhere) >= wanted:
                break
            groups = self._draw(iteration, draw, version, tally, listener)
            kept += [group for group in groups if self._keeps(group, tally)]
            everywhere = self._labels(kept)
        chosen = set(everywhere[:wanted])
        self.waiting = [group for group in kept if group.label not in chosen]
        tally.total(groups_waiting=float(len(self.waiting)))
        return [group for group in kept if group.label in chosen]

    def without_left_out(self, groups: Sequence[Group]) -> list[Group]:
        """Those groups whose task is still drawn; of the others, those that wait are forgotten, too."""
        self.waiting = [group for group in self.waiting if not self._order.leaves_out(group.rollouts[0].task)]
        return [group for group in groups if not self._order.leaves_out(group.rollouts[0].task)]

    def _labels(self, groups: Sequence[Group]) -> list[int]:
        """The labels of all processes' groups, in order."""
        return sorted(label for theirs in self._processes.gather([group.label for group in groups]) for label in theirs)

    def _keeps(self, group: Group, tally: Tally) -> bool:
        """The optimizer decides whether a group is kept; the config, whether it must be complete."""
        judged = Judged(group.rollouts, group.rewards, self._optimizer.group_size)
        keep = bool(self._optimizer.keep(judged)[0])
        if self._loop.drop_incomplete_groups and not bool(judged.valid_GK.all()):
            keep = False
        tally.total(groups_kept=float(keep), groups_dropped=float(not keep))
        return keep

    def _draw(self, iteration: int, draw: int, version: int, tally: Tally, listener: Listener) -> list[Group]:
        """Imagine and judge K rollouts of each of the next tasks: the groups of this process."""
        size, first_label = self._optimizer.group_size, self._order.drawn
        tasks = self._order.draw(self._loop.tasks_per_iteration)
        everyone = deals(tasks, first_label, size, self._loop.imagine_batch_size)
        mine = everyone[self._processes.rank :: self._processes.count]
        rollouts, futures = self._imagine(mine, iteration, draw, version)
        flat = [rollout for batch in rollouts for rollout in batch]
        listener.imagined(flat)
        rewards: list[Reward] = []
        for batch, future in zip(rollouts, futures, strict=True):
            rewards += judge(self._reward_model, batch, future, self._loop.rescore)
        listener.judged(flat, rewards)
        self._account(rewards, tally)
        return [
            Group(flat[at].group, tuple(flat[at : at + size]), tuple(rewards[at : at + size]))
            for at in range(0, len(flat), size)
        ]

    def _imagine(
        self, mine: Sequence[Deal], iteration: int, draw: int, version: int
    ) -> tuple[list[list[Rollout]], list["Future[list[Reward]]"]]:
        rollouts: list[list[Rollout]] = []
        futures: list[Future[list[Reward]]] = []
        for batch in (batch for deal in mine for batch in deal.batches):
            imagined = imagine(
                self._policy,
                self._world_model,
                batch.tasks,
                horizon=self._loop.horizon,
                temperature=self._loop.temperature,
                generator=seeded_generator(self._seed, "imagine", iteration, draw, batch.first),
                groups=batch.labels,
                batch_size=self._loop.imagine_batch_size,
                version=version,
            )
            rollouts.append(imagined)
            # A judge that answers slowly works on this batch while the next one is imagined.
            futures.append(submit(self._reward_model, imagined))
        return rollouts, futures

    def _account(self, rewards: Sequence[Reward], tally: Tally) -> None:
        """Count what was judged. Raises `RewardsFailing` in every process if too much of it, over all, failed."""
        values = [reward.value for reward in rewards if reward.value is not None]
        errors = [reward.error for reward in rewards if reward.error is not None]
        name = "imagined_success" if self._reward_model.kind == "success" else "imagined_reward"
        for value in values:
            tally.add({name: Metric(value)})
        for reward in rewards:
            tally.add({f"judge_{what}": Metric(number) for what, number in reward.numbers.items()})
        tally.total(
            rollouts=float(len(rewards)), unscored=float(len(errors)), cost_usd=sum(r.cost_usd for r in rewards)
        )
        counts = self._processes.gather((len(rewards), errors[:1], len(errors)))
        first = next((error for _, some, _ in counts for error in some), "")
        failed = [first] * sum(count for _, _, count in counts)
        judged = sum(count for count, _, _ in counts)
        refuse_failures(failed, judged, self._loop.max_error_rate, "loop.max_error_rate")

    def state_dict(self) -> dict[str, Any]:
        """The groups that wait in this process."""
        return {"waiting": [to_state(group) for group in self.waiting]}

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Share out the groups that waited in all processes of the snapshot, however many there were."""
        groups = [group_from_state(state) for theirs in states for state in theirs["waiting"]]
        groups.sort(key=lambda group: group.label)
        self.waiting = groups[self._processes.rank :: self._processes.count]


def group_from_state(state: Mapping[str, Any]) -> Group:
    """The inverse of `to_state` for a group."""
    rollouts = tuple(rollout_from_state(item) for item in state["rollouts"])
    return Group(state["label"], rollouts, tuple(reward_from_state(item) for item in state["rewards"]))
