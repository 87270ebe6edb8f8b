"""The loop: imagine, judge, update. A LightningModule with manual optimisation; one training step is one iteration.

It strings its parts together, and each part keeps its own state: `TaskOrder` draws tasks, `Collector` imagines, judges
and keeps groups, `Updater` takes gradient steps, `RunRecord` measures and writes. World and reward model are kept out
of the module, so that Lightning neither moves nor trains them.
"""

import copy
import time
from typing import Any

import lightning
import torch
from torch import nn

from gymnast_core.config.schema import RunConfig
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.events import Steering
from gymnast_core.rollouts.deal import Group
from gymnast_core.runs.snapshot import Snapshot, fitting
from gymnast_core.signals import listen
from gymnast_core.training.collect import Collector
from gymnast_core.training.engine import Engine
from gymnast_core.training.record import RunRecord
from gymnast_core.training.sharding import Learner, begin_alike
from gymnast_core.training.tally import Tally
from gymnast_core.training.tasks import NothingLeft, TaskOrder
from gymnast_core.training.unchanging import Unchanging, fingerprint_of, refuse_another_initial
from gymnast_core.training.update import Updater
from gymnast_core.types import Metric


class ReinforcementLoop(lightning.LightningModule):
    """Trains `parts.policy`."""

    record: RunRecord
    """Is told what happens, measures and writes; set before the trainer fits."""

    def __init__(
        self, config: RunConfig, parts: Parts, precision: str = "32-true", engine: Engine | None = None
    ) -> None:
        """`engine` makes the rollouts, and has the parts already; None makes them here."""
        super().__init__()
        self.automatic_optimization = False
        policy, optimizer = parts.policy, parts.optimizer
        assert policy is not None and parts.world_model is not None
        assert parts.reward_model is not None and optimizer is not None
        self.policy = policy
        self.extra = nn.ModuleDict(optimizer.extra_modules(policy))
        self.iteration = 0
        self._parts, self._config = parts, config
        self._unchanging = Unchanging(policy, getattr(policy, "config", None))
        self.order = TaskOrder(parts.tasks, config.seed)
        self.collector = Collector(
            policy, parts.world_model, parts.reward_model, optimizer, self.order, config.loop, config.seed,
            parts.processes, engine,
        )  # fmt: skip
        self.updater = Updater(
            policy, dict(self.extra), optimizer, parts.demonstrations, seed=config.seed,
            micro_batch_size=config.loop.micro_batch_size, precision=precision, processes=parts.processes,
        )  # fmt: skip
        # A list hides the reference from Lightning: it is neither trained nor saved.
        self._reference = [copy.deepcopy(policy).eval()] if optimizer.needs_reference else []
        self._initial = fingerprint_of(policy.state_dict()) if self._reference else None
        self._snapshot: Snapshot | None = None
        self._learner: Learner | None = None

    def configure_model(self) -> None:
        if self.device_mesh is None or self._learner is not None:
            return
        # Not registered: what acts, is measured and saved is the whole policy.
        begin_alike([self.policy, *self.extra.values()], self.trainer.strategy.root_device)
        self._learner = Learner(self.policy.eval(), self.device_mesh["data_parallel"])
        self.updater.share_out(self._learner.policy)

    @property
    def steps(self) -> range:
        """What is left to do: the iterations, then the end."""
        return range(self.iteration, max(self.iteration, self._config.loop.iterations) + 1)

    def configure_optimizers(self) -> torch.optim.Optimizer | None:
        optimizer = self._parts.optimizer
        assert optimizer is not None
        if not self._config.loop.iterations:
            return None  # a policy that is only measured need not be able to learn
        return optimizer.torch_optimizer(self.updater.parameters)

    def on_fit_start(self) -> None:
        processes = self._parts.processes
        listen(processes.leads)
        self.record.join()
        self.eval()  # `evaluate` must see what `act` saw: no dropout in either
        found = self.optimizers(use_pl_optimizer=False)
        self.updater.torch_optimizer = found if isinstance(found, torch.optim.Optimizer) else None
        for reference in self._reference:
            self.updater.hold(reference.to(self.device))
        self._restore_the_rest()
        if self._config.evaluation.before:
            self.record.evaluate("before", self.iteration)

    def on_train_start(self) -> None:
        # Only now has Lightning put its own handler before ours: it broadcasts in the midst of whatever goes on.
        listen(self._parts.processes.leads)

    def training_step(self, iteration: int, batch_idx: int) -> None:
        if iteration >= self._config.loop.iterations or self.record.stopped is not None:
            self.record.finish(self)
            self.trainer.should_stop = True
            return
        began = time.monotonic()
        tally, processes = Tally(), self._parts.processes
        groups = self._collect(iteration, tally)
        imagined = time.monotonic()
        if self.record.stopped is None and any(processes.gather(len(groups))):
            if iteration + 1 < self._config.loop.iterations:
                self.collector.draw_ahead(iteration + 1, self.updater.updates)
            self.record.learned = self.updater.update(groups, iteration, tally)
            if self._learner is not None:
                self._learner.hand_over()
        ended = time.monotonic()
        self.iteration = iteration + 1
        for name, seconds in {"seconds_imagining": imagined - began, "seconds_updating": ended - imagined}.items():
            tally.add({name: Metric(seconds, combine="max")})
        self.record.iteration_done(self, tally.numbers(processes))

    def _collect(self, iteration: int, tally: Tally) -> list[Group]:
        """What an iteration learns from, as far as hooks let it: they may leave out tasks, or stop the run."""
        try:
            listener = self.record.listener(iteration)
            groups = self.collector.collect(iteration, self.updater.updates, tally, listener)
            steering = self.record.steer(iteration, self.order.left_out)
        except NothingLeft as nothing:
            steering, groups = Steering(stop=str(nothing)), []
        self.order.leave_out(steering.leave_out)
        if self._parts.processes.leads:
            tally.add({name: Metric(value) for name, value in steering.metrics.items()})
        self.record.stopped = steering.stop
        return self.collector.without_left_out(groups)

    def on_train_end(self) -> None:
        # Options of the trainer (max_time, limit_train_batches, fast_dev_run) can end it after any iteration.
        if not self.record.finished:
            self.record.keep(self)

    def state_dict_of_run(self) -> dict[str, Any]:
        """Everything that the next iteration depends on, apart from the groups that wait in each process, and from
        frozen weights, which the policy's checkpoint gives back: those are under "unchanging" by their fingerprints."""
        weights, unchanging = self._unchanging.split(self.policy.state_dict())
        return {
            "iteration": self.iteration,
            "policy": weights,
            "unchanging": unchanging,
            "initial": self._initial,
            "extra": {name: dict(module.state_dict()) for name, module in self.extra.items()},
            "order": self.collector.order_state(),
            "updater": self.updater.state_dict(),
            "components": {
                name: part.state_dict() for name, part in self._parts.components().items() if name != "policy"
            },
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Continue after the iteration of a snapshot. Raises `CheckpointError` if it does not fit."""
        state = snapshot.state
        for reference in self._reference:
            refuse_another_initial(reference, state.get("initial"))
        with fitting(snapshot.path):
            # An earlier edition left nothing out.
            self.policy.load_state_dict(self._unchanging.joined(state["policy"], state.get("unchanging", {})))
            for name, module in self.extra.items():
                module.load_state_dict(state["extra"][name])
            self.order.load_state_dict(state["order"])
            for name, component in self._parts.components().items():
                if name != "policy":
                    component.load_state_dict(state["components"][name])
            self.record.load_state_dict(state["record"])
            self.iteration = state["iteration"]
        # The gradient optimizer, and the other processes, are there once the trainer fits.
        self._snapshot = snapshot

    def _restore_the_rest(self) -> None:
        if self._snapshot is None:
            return
        with fitting(self._snapshot.path):
            self.collector.load_state_dict(self._snapshot.processes)
            self.updater.load_state_dict(self._snapshot.state["updater"])
        if self._learner is not None:
            self._learner.hand_over()  # other shares of a coarse weight are rounded anew
        self._snapshot = None
