"""What an iteration learns from: draw tasks, imagine, judge, keep groups with a signal, until there are enough."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from gymnast_core.config.schema import LoopConfig
from gymnast_core.interfaces import Optimizer, Parts, Policy, RewardModel, WorldModel
from gymnast_core.learning import Judged
from gymnast_core.money import as_metric, total_usd
from gymnast_core.processes import Processes
from gymnast_core.rollouts.deal import Group, deals
from gymnast_core.rollouts.state import reward_from_state, rollout_from_state, to_state
from gymnast_core.success import success_of
from gymnast_core.training.engine import Engine, LocalEngine, Making, Wanted
from gymnast_core.training.judge import refuse_failures
from gymnast_core.training.tally import Tally
from gymnast_core.training.tasks import NothingLeft, TaskOrder
from gymnast_core.types import Metric, Reward, Rollout


class Listener(Protocol):
    """Who is told what was collected."""

    def imagined(self, rollouts: Sequence[Rollout]) -> None: ...

    def judged(self, rollouts: Sequence[Rollout], rewards: Sequence[Reward]) -> None: ...

    def paid(self, usd: float | None) -> None:
        """For what all processes judged; None if that is not known."""


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
        engine: Engine | None = None,
    ) -> None:
        """`engine` has the parts already; None makes rollouts here."""
        if engine is None:
            engine = LocalEngine()
            engine.attach(Parts(policy, world_model, reward_model))
        self._engine, self._reward_model = engine, reward_model
        self._optimizer, self._order, self._loop, self._seed = optimizer, order, loop, seed
        self._processes = processes
        self.waiting: list[Group] = []
        """Groups of this process that were kept and not yet learned from."""
        self._ahead: tuple[Making, Mapping[str, Any]] | None = None
        """The next iteration's first draw, if it is under way, and the order of tasks as it was before that."""

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

    def draw_ahead(self, iteration: int, version: int) -> None:
        """Let the engine begin with an iteration's first draw before the update that precedes it, if it works so.

        In a run of several processes, call it in all of them.
        """
        wanted = self._loop.groups_per_update or self._loop.tasks_per_iteration
        if not self._engine.staleness or len(self._labels(self.waiting)) >= wanted:
            return
        before = self._order.state_dict()
        with suppress(NothingLeft):  # the iteration itself says so
            self._ahead = self._start(iteration, 0, version), before

    def order_state(self) -> dict[str, Any]:
        """The order of tasks for a snapshot: a draw that is still under way is not part of it, and is drawn again."""
        state = self._order.state_dict()
        if self._ahead is not None:
            state |= {key: value for key, value in self._ahead[1].items() if key != "left_out"}
        return state

    def _start(self, iteration: int, draw: int, version: int) -> Making:
        first_label = self._order.drawn
        tasks = self._order.draw(self._loop.tasks_per_iteration)
        everyone = deals(tasks, first_label, self._optimizer.group_size, self._loop.imagine_batch_size)
        mine = tuple(everyone[self._processes.rank :: self._processes.count])
        return self._engine.start(Wanted(mine, self._loop, self._seed, iteration, draw, version))

    def _draw(self, iteration: int, draw: int, version: int, tally: Tally, listener: Listener) -> list[Group]:
        """Imagine and judge K rollouts of each of the next tasks: the groups of this process."""
        size = self._optimizer.group_size
        making = self._start(iteration, draw, version) if self._ahead is None else self._ahead[0]
        self._ahead = None
        flat = making.rollouts()
        listener.imagined(flat)
        rewards = making.rewards()
        listener.judged(flat, rewards)
        self._account(rewards, tally, listener)
        return [
            Group(flat[at].group, tuple(flat[at : at + size]), tuple(rewards[at : at + size]))
            for at in range(0, len(flat), size)
        ]

    def _account(self, rewards: Sequence[Reward], tally: Tally, listener: Listener) -> None:
        """Count what was judged. Raises `RewardsFailing` in every process if too much of it, over all, failed."""
        values = [value for reward in rewards if (value := success_of(reward)) is not None]
        errors = [reward.error for reward in rewards if reward.error is not None]
        name = "imagined_success" if self._reward_model.kind == "success" else "imagined_reward"
        for value in values:
            tally.add({name: Metric(value)})
        for reward in rewards:
            tally.add({f"judge_{what}": Metric(number) for what, number in reward.numbers.items()})
        cost = total_usd(reward.cost_usd for reward in rewards)
        tally.total(rollouts=float(len(rewards)), unscored=float(len(errors)), cost_usd=as_metric(cost))
        counts = self._processes.gather((len(rewards), errors[:1], len(errors), cost))
        first = next((error for _, some, _, _ in counts for error in some), "")
        failed = [first] * sum(count for _, _, count, _ in counts)
        judged = sum(count for count, _, _, _ in counts)
        listener.paid(total_usd(paid for _, _, _, paid in counts))
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
