"""The training loop as a Lightning module: steps of microbatches, moving average of the weights, log, snapshots."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from gymnast_core.errors import CheckpointError, DataError
from gymnast_core.interfaces import Policy, RewardModel, WorldModel
from gymnast_core.metric_names import VALIDATION
from gymnast_core.processes import Alone, Processes
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.writing import SnapshotWriter
from gymnast_core.seeds import seeded_generator, skip_episodes
from gymnast_core.training.answers import check_weight, checked_loss
from gymnast_core.training.masters import (
    MasterWeights,
    finer,
    gathered_state,
    put,
    refuse_coarse_statistics,
    restore_state,
)
from gymnast_core.training.movement import Movement, MovementWatch
from gymnast_core.training.settings import apply_changes, settings_of
from gymnast_core.training.sharding import Shards
from gymnast_core.training.tally import Tally
from gymnast_core.training.unchanging import Unchanging
from gymnast_core.types import Episode, Metric
from gymnast_fit.batches import Unreadable, readable
from gymnast_fit.config import FitConfig
from gymnast_fit.optimizers import FineWeights, build_optimizers, learning_rate_factor, moving_average
from gymnast_fit.processes import own_microbatches
from gymnast_fit.sharding import whole, whole_weights
from gymnast_fit.validation import measure

Fitted = WorldModel | Policy | RewardModel
"""What can be fitted."""


_REMEDY = "Raise fit.learning_rate, or keep the component's weights in float32."


def keeps_state(component: Fitted) -> bool:
    """Whether `state_dict` is what the component keeps beside its weights; a policy's is its weights."""
    return not isinstance(component, nn.Module)


class FitModule(lightning.LightningModule):
    """Runs `training_loss` under Lightning with manual optimisation (Muon and AdamW step together)."""

    def __init__(
        self,
        component: Fitted,
        config: FitConfig,
        folder: Path,
        validation: Sequence[Episode],
        tell_metrics: Callable[[int, Mapping[str, float]], None],
        precision: str = "32-true",
    ) -> None:
        """`tell_metrics` is told the numbers of a step, in the leader; `precision` is that of the loss."""
        super().__init__()
        self.automatic_optimization = False
        self.network = component.module()
        self._component, self._config, self._folder, self._validation = component, config, folder, validation
        self._tell_metrics, self._precision = tell_metrics, precision
        self._processes: Processes = Alone()
        refuse_coarse_statistics(self.network)
        self._unchanging = Unchanging(self.network, getattr(component, "config", None))
        self.writer = SnapshotWriter(Alone())
        """Writes the leader's snapshots while the training goes on."""
        self.average: AveragedModel | None = None
        if config.fit.ema > 0:
            self.average = moving_average(self.network, config.fit.ema)
            for parameter in self.average.parameters():
                # A coarse average would stand still: it moves by less than a thousandth at a step.
                parameter.data = finer(parameter.data)
        self.masters = MasterWeights([])
        """Float32 copies of what is trained in a coarser dtype."""
        self._watch = MovementWatch(_REMEDY)
        self._saved_masters: Mapping[str, Any] | None = None
        self.step = self._saved_step = 0
        self.sharded = False
        """Whether each process holds a part of the weights."""
        self.gathered: dict[str, torch.Tensor] = {}
        """Of sharded weights: the whole ones of the last snapshot (leader only)."""
        self.terminated = False
        """Whether a signal ended the training before its last step."""
        self.interrupted = False
        """Whether that was Ctrl-C."""
        self._tally = Tally()
        self._quality: tuple[int, dict[str, float]] | None = None
        """The last validation and its step."""
        self._optimizer_states: list[dict[str, Any]] | None = None
        self._settings: list[list[dict[str, Any]]] = []
        """What each gradient optimizer was told."""
        self._earlier_settings: list[list[dict[str, Any]]] | None = None
        """What it was told by the process that wrote the snapshot."""
        self._began = time.monotonic()
        self._earlier_seconds = 0.0
        """Training time of the processes that this one continues."""

    def configure_model(self) -> None:
        if self.device_mesh is not None and not self.sharded:
            self.sharded = True
            assert isinstance(self._component, Shards)
            self._component.shard(self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return build_optimizers(self.network, self._config.fit)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # components move what they need; Lightning cannot look into our dataclasses

    def on_fit_start(self) -> None:
        # A fit of one process may be part of a training in several, which do something else meanwhile.
        self._processes = Processes() if self.trainer.world_size > 1 else Alone()
        self.network.train()
        self.masters = MasterWeights([p for p in self.network.parameters() if p.requires_grad])
        self._settings = [settings_of(optimizer) for optimizer in self._optimizers()]
        for optimizer in self._optimizers():
            self.masters.adopt(optimizer)
        if self.trainer.is_global_zero:
            self.masters.announce()
        states, self._optimizer_states = self._optimizer_states, None
        if states is None:
            return
        with _fitting_snapshot(self._folder):
            for optimizer, state in zip(self._optimizers(), states, strict=True):
                restore_state(optimizer, state)
            if self._earlier_settings is not None:
                for optimizer, told, before in zip(
                    self._optimizers(), self._settings, self._earlier_settings, strict=True
                ):
                    apply_changes(optimizer, told, before)
            if self._saved_masters is not None:
                self.masters.load_state_dict(self._saved_masters)
                self._saved_masters = None

    def on_train_start(self) -> None:
        # Lightning's own handler talks to the other processes wherever it interrupts, even inside a collective.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)
            if self.trainer.world_size == 1 and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._on_sigint)

    def training_step(self, batch: list[Episode | Unreadable], batch_idx: int) -> None:
        loop, step, optimizers = self._config.fit, self.step, self._optimizers()
        self.masters.follow()
        with self._coarse_weights():
            loss = self._add_gradients(readable(batch))
        norm = whole(nn.utils.clip_grad_norm_(self.masters.stepped, loop.max_grad_norm))
        if not torch.isfinite(norm):
            if not self.trainer.is_global_zero:
                raise SystemExit(2)  # every process finds the same norm, and the leader says so
            raise DataError(
                f"The gradient became {float(norm)} at step {step} (loss {loss:.4g}). Go on from the last "
                f"snapshot: {resume_command('fit', self._folder)} fit.learning_rate=LOWER, or look for bad episodes."
            )
        movement = Movement(self.masters.stepped)
        rates = (loop.learning_rate, loop.muon_learning_rate)
        for optimizer, rate in zip(optimizers, rates, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate * learning_rate_factor(step, loop)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        unmoved = movement.unmoved()
        self.masters.write()
        if self.average is not None:
            self.average.update_parameters(FineWeights(self.network, self.masters))
        if self.trainer.is_global_zero:
            self._tally.add({"grad_norm": Metric(norm), "unmoved": unmoved})
            rate = loop.learning_rate * learning_rate_factor(step, loop)
            self._watch.see(movement, unmoved, rate, step + 1)
        self.step += 1
        stopping = self._stopping()
        self.terminated = stopping == "terminated" and self.step < loop.steps
        self._record(ended=self.step >= loop.steps or stopping == "time")
        if stopping or self.step >= loop.steps:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        # Options of the trainer (limit_train_batches, max_time) can end it at any step.
        if self.step > self._saved_step:
            self._record(ended=True)
        self.writer.wait()

    def _add_gradients(self, episodes: list[Episode]) -> float:
        """Leave the gradient of the mean loss over all processes' microbatches; returns that of this process's.

        A loss is a sum and its weight: the sums are added up, and divided by the weight of everything, once.
        """
        loop, processes = self._config.fit, self.trainer.world_size
        size = loop.batch_size // loop.microbatches
        # FSDP averages gradients over the processes where we want their sum.
        factor = processes if self.sharded else 1
        weight, total = 0.0, 0.0
        for place, number in enumerate(own_microbatches(self._config, self.trainer.global_rank, processes)):
            part = episodes[place * size : (place + 1) * size]
            # An episode has its own randomness, whichever microbatch it is in and whichever process computes it.
            generator = skip_episodes(seeded_generator(self._config.seed, "step", self.step), number * size)
            with self._autocast():
                found = self._component.training_loss(part, generator=generator)
            loss = checked_loss(self._component, "training_loss", found)
            its_weight, its_total = float(loss.weight), float(loss.total.detach())
            check_weight(self._component, "training_loss", its_weight, its_total)
            if loss.total.requires_grad:
                self.manual_backward(loss.total * factor)
            self.masters.take_gradients()
            self._tally.add({"loss": Metric(loss.mean.detach(), loss.weight), **loss.metrics})
            weight += its_weight
            total += its_total
        whole_weight = sum(self._processes.gather(weight))
        if whole_weight == 0:
            if not self.trainer.is_global_zero:
                raise SystemExit(2)  # the leader says why
            raise DataError(
                f"Nothing can be learned from any episode of step {self.step} (its loss weighs nothing): they do not "
                "say what the component is to learn. Choose episodes that do, e.g. with success or outcomes for a "
                "reward model."
            )
        trained = self.masters.stepped
        for parameter in trained:
            if parameter.grad is not None:
                parameter.grad.div_(whole_weight)
        if not self.sharded:
            self._processes.sum_gradients(trained)
        return total / max(weight, 1e-12)

    def _autocast(self) -> AbstractContextManager[Any]:
        """What `trainer.precision` says, around a loss and nothing else."""
        if self._precision != "bf16-mixed":
            return nullcontext()
        return torch.autocast(next(self.network.parameters()).device.type, dtype=torch.bfloat16)

    def _coarse_weights(self) -> AbstractContextManager[Any]:
        """What autocast is to see of the weights."""
        mixed = self._precision == "bf16-mixed"
        return self.masters.computing_in(torch.bfloat16, of=self.network) if mixed else nullcontext()

    def _on_sigterm(self, number: int, frame: Any) -> None:
        # The leader decides for all after its step; a second SIGTERM does not wait for that.
        self.terminated = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL if self.trainer.is_global_zero else signal.SIG_IGN)

    def _on_sigint(self, number: int, frame: Any) -> None:
        # Of one process: Ctrl-C reaches all of several at once, and they end together.
        self.terminated = self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("Ending after this step, with a snapshot. Once more: at once.", file=sys.stderr, flush=True)

    def let_go_of_ctrl_c(self) -> None:
        """After the training, however it ended: Ctrl-C is Python's own again."""
        if signal.getsignal(signal.SIGINT) == self._on_sigint:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _stopping(self) -> str:
        """Why the training ends before its last step, as the leader sees it; empty if it goes on."""
        limit = self._config.fit.max_minutes
        late = limit is not None and time.monotonic() - self._began > 60 * limit
        reason = "terminated" if self.terminated else "time" if late else ""
        return reason if self.trainer.world_size == 1 else self.trainer.strategy.broadcast(reason)

    def _record(self, ended: bool) -> None:
        """Whatever is due after this step: validation, a row of the log, a snapshot. The other processes wait."""
        loop, step = self._config.fit, self.step
        self.writer.check()
        due = self._config.validation is not None and (
            ended or (loop.validate_every > 0 and step % loop.validate_every == 0)
        )
        logs = due or ended or step % loop.log_every == 0
        saves = ended or self.terminated or step % loop.checkpoint_every == 0
        leads, gathered = self.trainer.is_global_zero, Tally()
        if logs or saves:
            gathered.add(self._tally.combined(self._processes))
            # From here on the leader holds what all processes measured.
            self._tally = gathered if leads and not logs else Tally()
        # Every process is needed for a pass of sharded weights.
        quality = self.validate_average() if due and (leads or self.sharded) else {}
        if logs and leads:
            means = gathered.numbers()
            means |= {f"{VALIDATION}{key}": value for key, value in quality.items()}
            means["seconds"] = self._seconds()
            self._tell_metrics(step, means)
        if saves:
            if leads or self.sharded:
                state = self.full_state()
                if leads:
                    self.writer.write(self._folder / "snapshots", step, state, own=None)
            self._saved_step = step

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._began

    def validate_average(self) -> dict[str, float]:
        """Quality of the averaged weights (the ones that are saved) on held-out episodes; {} without any."""
        if not self._validation:
            return {}
        if self._quality is None or self._quality[0] != self.step:
            pictures = self._folder / "validation" / f"step-{self.step:06d}"
            with self._averaged_weights():
                self.network.eval()
                draws = pictures if not self.sharded or self.trainer.is_global_zero else None
                numbers = measure(self._component, self._validation, self._config.seed, draws)
            self.network.train()
            self._quality = (self.step, numbers)
        return self._quality[1]

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        if self.average is None:
            yield
            return
        own = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.use_average()
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def use_average(self) -> None:
        """Put the averaged weights into the network."""
        if self.average is not None:
            own, averaged = self.network.state_dict(), self.average.module.state_dict()
            for name, x in own.items():
                put(x, averaged[name])

    def full_state(self) -> dict[str, Any]:
        """Everything that the next step, and the next row of the log, depend on."""
        if self.sharded:
            self.gathered = whole_weights(self.network)
        optimizers = [gathered_state(optimizer) for optimizer in self._optimizers()]
        # Frozen weights of a checkpoint are left out: it gives them back.
        weights, unchanging = self._unchanging.split(self.gathered if self.sharded else self.network.state_dict())
        return {
            "step": self.step,
            "network": weights,
            "unchanging": unchanging,
            "average": None if self.average is None else dict(self.average.state_dict()),
            "optimizers": optimizers,
            "settings": self._settings,
            "weights": self.masters.state_dict(),
            "component": self._component.state_dict() if keeps_state(self._component) else {},
            "tally": self._tally.state_dict(),
            "seconds": self._seconds(),
        }

    def resume_from(self, state: Mapping[str, Any], leader: bool = True) -> None:
        """Take over weights and average now, optimizer states when Lightning has made the optimizers."""
        with _fitting_snapshot(self._folder):
            self.network.load_state_dict(self._unchanging.joined(state["network"], state.get("unchanging", {})))
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            if keeps_state(self._component):
                self._component.load_state_dict(state["component"])
            self.step = self._saved_step = int(state["step"])
            self._optimizer_states, self._saved_masters = state["optimizers"], state.get("weights")
            self._earlier_settings = state.get("settings")  # an earlier edition kept none
            self._tally = Tally()
            if leader:  # the tally holds what all processes had measured
                self._tally.load_state_dict(state["tally"])
            self._earlier_seconds = float(state["seconds"])

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers = self.optimizers(use_pl_optimizer=False)
        return list(optimizers) if isinstance(optimizers, list) else [optimizers]  # type: ignore[list-item]


@contextmanager
def _fitting_snapshot(folder: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"The snapshot in {folder} does not fit the config: {reason}. Resume with the component, fit.ema and "
            "fit.optimizer that the run began with, and with the same kind of trainer.strategy."
        ) from error
