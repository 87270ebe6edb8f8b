"""The training loop as a Lightning module: steps, moving average of the weights, validation, snapshots."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gymnast_core.errors import CheckpointError, DataError
from gymnast_core.interfaces import Trainable
from gymnast_core.snapshot import save_snapshot, seeded_generator
from gymnast_core.types import Episode
from gymnast_fit.config import FitConfig
from gymnast_fit.optimizers import build_optimizers, learning_rate_factor


class FitModule(lightning.LightningModule):
    """Runs `training_loss` under Lightning with manual optimisation (Muon and AdamW step together)."""

    def __init__(
        self, component: Trainable, config: FitConfig, folder: Path, validation: Sequence[Episode], hook: Any
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = component.module()
        self._component, self._config, self._folder, self._validation = component, config, folder, validation
        self._hook = hook
        self.average: AveragedModel | None = None
        if config.fit.ema > 0:
            average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.fit.ema), use_buffers=False)
            self.average = average.requires_grad_(False)
        self.step = self._saved_step = 0
        self._sums: dict[str, list[float]] = {}
        """Sum and count of each metric since the last row of the log."""
        self._quality: tuple[int, dict[str, float]] | None = None
        """The last validation and its step."""
        self._optimizer_states: list[dict[str, Any]] | None = None
        self._began = time.monotonic()
        self._earlier_seconds = 0.0
        """Training time of the processes that this one continues."""

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return build_optimizers(self.network, self._config.fit)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # components move what they need; Lightning cannot look into our dataclasses

    def on_fit_start(self) -> None:
        self.network.train()
        states, self._optimizer_states = self._optimizer_states, None
        if states is None:
            return
        with _fitting_snapshot(self._folder):
            for optimizer, state in zip(self._optimizers(), states, strict=True):
                optimizer.load_state_dict(state)

    def training_step(self, batch: list[Episode], batch_idx: int) -> None:
        loop, step, optimizers = self._config.fit, self.step, self._optimizers()
        loss = self._component.training_loss(batch, generator=seeded_generator(self._config.seed, "step", step))
        self.manual_backward(loss.value)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), loop.max_grad_norm)
        if not torch.isfinite(norm):
            raise DataError(
                f"The gradient became {float(norm)} at step {step} (loss {loss.value.item():.4g}). Go on from the last "
                f"snapshot with gymnast fit --resume {self._folder} fit.learning_rate=LOWER, or look for bad episodes."
            )
        rates = (loop.learning_rate, loop.muon_learning_rate)
        for optimizer, rate in zip(optimizers, rates, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate * learning_rate_factor(step, loop)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.network)
        self._add({"loss": float(loss.value.detach()), "grad_norm": float(norm), **loss.metrics})
        self.step += 1
        ended = self.step >= loop.steps or self._minutes_are_up()
        self._record(ended)
        if ended:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        # Options of the trainer (limit_train_batches, max_time) can end it at any step.
        if self.step > self._saved_step:
            self._record(ended=True)

    def _add(self, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            pair = self._sums.setdefault(key, [0.0, 0])
            pair[0] += float(value)
            pair[1] += 1

    def _record(self, ended: bool) -> None:
        """Whatever is due after this step: validation, a row of the log, a snapshot."""
        loop, step = self._config.fit, self.step
        due = bool(self._validation) and (ended or (loop.validate_every > 0 and step % loop.validate_every == 0))
        if due or ended or step % loop.log_every == 0:
            means = {key: total / count for key, (total, count) in self._sums.items()}
            self._sums = {}
            if due:
                means |= {f"validation/{key}": value for key, value in self.validate_average().items()}
            means["seconds"] = self._seconds()
            self._hook.gymnast_metrics(config=self._config, step=step, metrics=means)
        if ended or step % loop.checkpoint_every == 0:
            save_snapshot(self._folder / "snapshots", step, self.full_state())
            self._saved_step = step

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._began

    def _minutes_are_up(self) -> bool:
        limit = self._config.fit.max_minutes
        return limit is not None and time.monotonic() - self._began > 60 * limit

    def validate_average(self) -> dict[str, float]:
        """Quality of the averaged weights (the ones that are saved) on held-out episodes; {} without any."""
        if not self._validation:
            return {}
        if self._quality is None or self._quality[0] != self.step:
            generator = seeded_generator(self._config.seed, "validation")
            with self._averaged_weights(), torch.no_grad():
                self.network.eval()
                numbers = self._component.validate(self._validation, generator=generator)
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
            self.network.load_state_dict(self.average.module.state_dict())

    def full_state(self) -> dict[str, Any]:
        """Everything that the next step, and the next row of the log, depend on."""
        return {
            "step": self.step,
            "network": dict(self.network.state_dict()),
            "average": None if self.average is None else dict(self.average.state_dict()),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers()],
            "sums": self._sums,
            "seconds": self._seconds(),
        }

    def resume_from(self, state: Mapping[str, Any]) -> None:
        """Take over weights and average now, optimizer states when Lightning has made the optimizers."""
        with _fitting_snapshot(self._folder):
            self.network.load_state_dict(state["network"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
        self.step = self._saved_step = state["step"]
        self._optimizer_states = state["optimizers"]
        self._sums = dict(state.get("sums", {}))
        self._earlier_seconds = state.get("seconds", 0.0)

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
            "fit.optimizer that the run began with."
        ) from error
