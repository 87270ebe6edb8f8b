"""`gymnast fit`: supervised training of a world model, a policy or a reward model on recorded episodes.

The component brings `training_loss`; this file brings the loop: seeded batches, AdamW or Muon, warm-up and decay,
an exponential moving average (EMA), validation, snapshots and exact resume, on Lightning's Trainer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Sampler

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.hooks import plugin_manager
from gymnast_core.interfaces import Trainable
from gymnast_core.registry import Registry, registries
from gymnast_core.snapshot import (
    load_latest_snapshot,
    open_run_folder,
    save_snapshot,
    seeded_generator,
    write_json,
)
from gymnast_core.trainer import build_trainer
from gymnast_core.types import Episode
from gymnast_fit.config import FitConfig, FitLoopConfig


class _SeededBatches(Sampler[list[int]]):
    """Batches of episode indices; each epoch is a permutation drawn from (seed, epoch), so any step can be resumed."""

    def __init__(self, count: int, batch_size: int, seed: int, start: int, steps: int) -> None:
        self.count, self.batch_size, self.seed, self.start, self.steps = count, batch_size, seed, start, steps

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, torch.empty(0, dtype=torch.long)
        for step in range(self.start, self.steps):
            batch = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                if position // self.count != epoch:
                    epoch = position // self.count
                    order = torch.randperm(self.count, generator=seeded_generator(self.seed, "epoch", epoch))
                batch.append(int(order[position % self.count]))
            yield batch


class _Indexed(Dataset[Episode]):
    def __init__(self, episodes: Sequence[Episode]) -> None:
        self.episodes = episodes

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Episode:
        return self.episodes[index]


def learning_rate_factor(step: int, config: FitLoopConfig) -> float:
    """Linear warm-up, then constant or a cosine to zero at the last step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.decay == "constant":
        return 1.0
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def build_optimizers(module: nn.Module, config: FitLoopConfig) -> list[torch.optim.Optimizer]:
    """AdamW on everything, or Muon (torch.optim.Muon) on the matrices of repeated blocks and AdamW on the rest.

    Block matrices are the 2-D parameters inside an nn.ModuleList; embeddings, heads, norms and biases stay with AdamW.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    matrices: dict[str, nn.Parameter] = {}
    if config.optimizer == "muon":
        lists = [name for name, child in module.named_modules() if isinstance(child, nn.ModuleList)]
        inside = tuple(f"{name}." for name in lists)
        matrices = {name: p for name, p in trained.items() if p.ndim == 2 and name.startswith(inside)}
    elif config.optimizer != "adamw":
        raise ConfigError(f"fit.optimizer is {config.optimizer!r}; known: adamw, muon.")
    rest = [p for name, p in trained.items() if name not in matrices]
    betas = (config.betas[0], config.betas[1])
    # Weight decay is for matrices: on norms and biases it only shrinks what should be free.
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas)]
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                list(matrices.values()), lr=config.muon_learning_rate, weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )  # fmt: skip
    return optimizers


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
        self.average = None
        if config.fit.ema > 0:
            average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.fit.ema), use_buffers=False)
            self.average = average.requires_grad_(False)
        self.step = 0
        self._began = time.monotonic()
        self._sums: dict[str, float] = {}
        self._count = 0

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return build_optimizers(self.network, self._config.fit)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # components move what they need; Lightning cannot look into our dataclasses

    def training_step(self, batch: list[Episode], batch_idx: int) -> None:
        loop, step = self._config.fit, self.step
        optimizers = self.optimizers(use_pl_optimizer=False)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        rates = [loop.learning_rate, loop.muon_learning_rate]
        loss = self._component.training_loss(batch, generator=seeded_generator(self._config.seed, "step", step))
        self.manual_backward(loss.value)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), loop.max_grad_norm)
        if not torch.isfinite(norm):
            raise DataError(
                f"The gradient became {float(norm)} at step {step}; lower fit.learning_rate or fit.max_grad_norm."
            )
        for optimizer, rate in zip(optimizers, rates, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate * learning_rate_factor(step, loop)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.network)
        for key, value in {"loss": float(loss.value.detach()), "grad_norm": float(norm), **loss.metrics}.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count += 1
        self.step += 1
        self._after_step()

    def _after_step(self) -> None:
        loop, step = self._config.fit, self.step
        ended = step >= loop.steps or self.minutes_are_up()
        if step % loop.log_every == 0 or ended:
            means = {key: value / self._count for key, value in self._sums.items()}
            self._sums, self._count = {}, 0
            if loop.validate_every and (step % loop.validate_every == 0 or ended):
                means |= {f"validation/{key}": value for key, value in self.validate_average().items()}
            means["seconds"] = time.monotonic() - self._began
            self._hook.gymnast_metrics(config=self._config, step=step, metrics=means)
        if step % loop.checkpoint_every == 0 or ended:
            save_snapshot(self._folder / "snapshots", step, self.full_state())
        if ended:
            self.trainer.should_stop = True

    def minutes_are_up(self) -> bool:
        limit = self._config.fit.max_minutes
        return limit is not None and time.monotonic() - self._began > 60 * limit

    def validate_average(self) -> dict[str, float]:
        """Quality of the averaged weights (the ones that are saved) on held-out episodes."""
        if not self._validation:
            return {}
        generator = seeded_generator(self._config.seed, "validation")
        own = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.use_average()
        self.network.eval()
        with torch.no_grad():
            numbers = self._component.validate(self._validation, generator=generator)
        self.network.train()
        self.network.load_state_dict(own)
        return numbers

    def use_average(self) -> None:
        """Put the averaged weights into the network."""
        if self.average is not None:
            self.network.load_state_dict(self.average.module.state_dict())

    def full_state(self) -> dict[str, Any]:
        optimizers = self.optimizers(use_pl_optimizer=False)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        return {
            "step": self.step,
            "network": dict(self.network.state_dict()),
            "average": None if self.average is None else dict(self.average.state_dict()),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        }

    def on_fit_start(self) -> None:
        self.network.train()
        if self._resumed is None:
            return
        optimizers = self.optimizers(use_pl_optimizer=False)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        for optimizer, state in zip(optimizers, self._resumed["optimizers"], strict=True):
            optimizer.load_state_dict(state)

    _resumed: dict[str, Any] | None = None

    def resume_from(self, state: dict[str, Any]) -> None:
        """Take over weights and average now, optimizer states when Lightning has made the optimizers."""
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self._resumed = state["step"], state


def _component(config: FitConfig) -> tuple[str, Trainable]:
    known = registries()
    kinds: dict[str, Registry[Any]] = {
        "world_model": known.world_models,
        "policy": known.policies,
        "reward_model": known.reward_models,
    }
    chosen = [kind for kind in kinds if getattr(config, kind) is not None]
    if len(chosen) != 1:
        raise ConfigError(
            f"`gymnast fit` trains exactly one component; the config names {chosen or 'none'}. "
            "Write one of world_model=NAME, policy=NAME, reward_model=NAME."
        )
    part = getattr(config, chosen[0])
    return part.name, kinds[chosen[0]].build(part.name, part.args)


def fit(config: FitConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Train a component; its checkpoint (averaged weights) is written to OUTPUT/checkpoint. Returns the summary."""
    name, component = _component(config)
    datasets = registries().datasets
    episodes = datasets.build(config.episodes.name, config.episodes.args).episodes()
    if not len(episodes):
        raise DataError(f"The dataset {config.episodes.name!r} holds no episodes.")
    held_out: Sequence[Episode] = []
    if config.validation is not None:
        source = datasets.build(config.validation.name, config.validation.args).episodes()
        held_out = [source[i] for i in range(min(len(source), config.fit.validation_episodes))]
    state = None if resume is None else load_latest_snapshot(resume / "snapshots")
    config, folder = open_run_folder(config, f"fit-{name}", resume)
    hook = plugin_manager().hook
    module = FitModule(component, config, folder, held_out, hook)
    if state is not None:
        module.resume_from(state)
    batches = _SeededBatches(len(episodes), config.fit.batch_size, config.seed, module.step, config.fit.steps)
    loader = DataLoader(_Indexed(episodes), batch_sampler=batches, collate_fn=list, num_workers=config.fit.workers)
    hook.gymnast_run_started(
        config=config, title=f"Fitting {name}", step=module.step, total=config.fit.steps, unit="step"
    )
    try:
        if module.step < config.fit.steps:
            build_trainer(config.trainer).fit(module, loader)
    finally:
        hook.gymnast_run_stopped(config=config)
    quality = module.validate_average()
    module.use_average()
    module.network.eval()
    component.save(folder / "checkpoint")
    summary = {"checkpoint": str(folder / "checkpoint"), "steps": module.step, "validation": quality}
    summary["parameters"] = sum(p.numel() for p in module.network.parameters())
    write_json(folder / "summary.json", summary)
    return summary
