"""The loop: imagine, score, update. A LightningModule with manual optimisation; one training step is one iteration.

Each iteration draws tasks, imagines K rollouts of each, scores them, drops the groups that carry no signal, draws more
until the batch is full (dynamic sampling; surplus groups wait for the next iteration), computes advantages and takes a
few clipped gradient steps. World and reward models are kept out of the module, so they are in no checkpoint of it.
"""

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import lightning
import torch
from torch import Tensor, nn

from gymnast_core.config import RunConfig
from gymnast_core.errors import ConfigError, GymnastError
from gymnast_core.interfaces import Loss, Optimizer, Policy, RewardModel, WorldModel
from gymnast_core.rollouts.imagine import imagine, rollout_from_state, rollout_to_state
from gymnast_core.runs.snapshot import save_snapshot
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import ActionChunk, Episode, Observation, Reward, Rollout, Task

T = TypeVar("T")
_COUNTERS = ("iteration", "updates", "task_cursor", "group_count")
_TOTALS = ("groups_kept", "groups_dropped", "rollouts", "unscored", "cost_usd")


@dataclass
class Components:
    """The parts of a run. A plain holder, so that Lightning does not take the world model for a submodule."""

    policy: Policy
    world_model: WorldModel
    reward_model: RewardModel
    optimizer: Optimizer
    tasks: Sequence[Task]
    demonstrations: Sequence[Episode] = ()


@dataclass
class Group:
    """The K rollouts of one task draw, with their rewards."""

    rollouts: list[Rollout]
    rewards: list[Reward]

    @property
    def values_K(self) -> Tensor:
        return torch.tensor([math.nan if reward.value is None else reward.value for reward in self.rewards])


class Tally:
    """Weighted sums of an iteration's numbers."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, metrics: Mapping[str, float], weight: float = 1.0) -> None:
        for key, value in metrics.items():
            self.sums[key] += weight * float(value)
            self.counts[key] += weight

    def gather(self) -> None:
        """Add up what all processes have measured."""
        every = gathered([[self]])
        self.sums = {key: sum(tally.sums[key] for tally in every) for key in self.sums}
        self.counts = {key: sum(tally.counts[key] for tally in every) for key in self.counts}

    def means(self) -> dict[str, float]:
        return {key: self.sums[key] / self.counts[key] for key in self.sums if self.counts[key]}


def gathered(batches: list[list[T]]) -> list[T]:
    """The batches of all processes in the order in which they were dealt out, as one list."""
    if torch.distributed.is_initialized():
        every: list[list[list[T]]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(every, batches)
        batches = [batch for turn in zip(*every, strict=True) for batch in turn]
    return [item for batch in batches for item in batch]


class RewardsFailing(GymnastError):
    """Too many rollouts could not be judged; the run stops and can be resumed."""


class ReinforcementLoop(lightning.LightningModule):
    """Trains `parts.policy`; see the module's docstring."""

    def __init__(
        self, config: RunConfig, parts: Components, folder: Path, hook: Any, evaluate: Callable[[str, int], object]
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = parts.policy
        self._parts, self._config, self._folder, self._hook, self._evaluate = parts, config, folder, hook, evaluate
        # A list hides the reference from Lightning: it is neither trained nor saved.
        self._reference = [copy.deepcopy(parts.policy).eval()] if parts.optimizer.needs_reference else []
        self._optimizer_state: dict[str, Any] | None = None
        self.iteration = self.updates = self.task_cursor = self.group_count = 0
        self.surplus: list[Group] = []

    def check(self, ranks: int) -> None:
        """Raises `ConfigError` if the policy cannot learn, or `ranks` processes would imagine unequal shares."""
        loop = self._config.loop
        if loop.iterations:
            self.configure_optimizers()
        episodes = loop.tasks_per_iteration * self._parts.optimizer.group_size
        if math.ceil(episodes / loop.imagine_batch_size) % ranks:
            batches = f"{episodes} rollouts in batches of loop.imagine_batch_size={loop.imagine_batch_size}"
            raise ConfigError(f"{ranks} processes cannot share {batches}; set it to {math.ceil(episodes / ranks)}.")

    def run(self, trainer: lightning.Trainer, state: Mapping[str, Any] | None) -> None:
        """The iterations that are left, after those of the snapshot `state` if there is one."""
        if state is not None:
            self.restore(state)
        if self.iteration < self._config.loop.iterations:
            trainer.fit(self, range(self.iteration, self._config.loop.iterations))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._parts.optimizer.torch_optimizer([p for p in self.policy.parameters() if p.requires_grad])

    def on_fit_start(self) -> None:
        self.policy.eval()  # `evaluate` must see what `act` saw: no dropout in either
        for reference in self._reference:
            reference.to(self.device)
        if self._optimizer_state is not None:
            self._torch_optimizer().load_state_dict(self._optimizer_state)

    def training_step(self, iteration: int, batch_idx: int) -> None:
        began = time.monotonic()
        tally = Tally()
        groups = self._collect(iteration, tally)
        imagined = time.monotonic()
        if groups:
            self._update(groups, iteration, tally)
        ended = time.monotonic()
        self.iteration = iteration + 1
        # An iteration that waiting groups fill imagines nothing.
        totals = {key: tally.sums.get(key, 0.0) for key in _TOTALS}
        metrics = tally.means() | totals | {"groups_waiting": float(len(self.surplus))}
        metrics["rollouts_per_second"] = totals["rollouts"] / max(imagined - began, 1e-9)
        metrics["seconds_imagining"], metrics["seconds_updating"] = imagined - began, ended - imagined
        self._hook.gymnast_metrics(config=self._config, step=self.iteration, metrics=metrics)
        # Evaluated first: a run that is killed in between repeats the iteration, evaluation included.
        every = self._config.evaluation.every
        if every and self.iteration % every == 0 and self.trainer.is_global_zero:
            self._evaluate(f"iteration-{self.iteration:06d}", self.iteration)
        due = self.iteration % self._config.checkpoint_every == 0 or self.iteration == self._config.loop.iterations
        if due and self.trainer.is_global_zero:
            self.snapshot()

    def _collect(self, iteration: int, tally: Tally) -> list[Group]:
        loop, optimizer = self._config.loop, self._parts.optimizer
        wanted = loop.groups_per_update or loop.tasks_per_iteration
        kept, self.surplus = self.surplus, []
        for draw in range(loop.max_draws):
            if len(kept) >= wanted:
                break
            for group in self._draw(iteration, draw, tally):
                values_1K = group.values_K[None]
                keep = bool(optimizer.keep(values_1K, ~values_1K.isnan())[0])
                keep &= not (loop.drop_incomplete_groups and values_1K.isnan().any())
                tally.add({"groups_kept": float(keep), "groups_dropped": float(not keep)})
                if keep:
                    kept.append(group)
        self.surplus = kept[wanted:]
        return kept[:wanted]

    def _draw(self, iteration: int, draw: int, tally: Tally) -> list[Group]:
        """Imagine and score K rollouts of each of the next tasks."""
        loop, parts, size = self._config.loop, self._parts, self._parts.optimizer.group_size
        tasks = enumerate([self._next_task() for _ in range(loop.tasks_per_iteration)], self.group_count)
        self.group_count += loop.tasks_per_iteration
        episodes = [(task, label) for label, task in tasks for _ in range(size)]
        mine: list[list[Rollout]] = []
        futures: list[Future[list[Reward]]] = []
        # Each process imagines and judges its share of the batches; all of them learn from all rollouts.
        starts = range(0, len(episodes), loop.imagine_batch_size)
        for first in starts[self.trainer.global_rank :: self.trainer.world_size]:
            batch = episodes[first : first + loop.imagine_batch_size]
            imagined = imagine(
                parts.policy,
                parts.world_model,
                [task for task, _ in batch],
                horizon=loop.horizon,
                temperature=loop.temperature,
                generator=seeded_generator(self._config.seed, "imagine", iteration, draw, first),
                groups=[label for _, label in batch],
                batch_size=loop.imagine_batch_size,
            )
            mine.append(imagined)
            # A judge that answers slowly works on this batch while the next one is imagined.
            futures.append(parts.reward_model.submit(imagined))
        rollouts = gathered(mine)
        self._hook.gymnast_rollouts_done(config=self._config, rollouts=rollouts, step=iteration)
        judged = zip(mine, futures, strict=True)
        rewards = gathered([self._scored_again(batch, future.result()) for batch, future in judged])
        self._hook.gymnast_rewards_scored(config=self._config, rollouts=rollouts, rewards=rewards, step=iteration)
        self._account(rewards, tally)
        return [Group(rollouts[i : i + size], rewards[i : i + size]) for i in range(0, len(rollouts), size)]

    def _scored_again(self, rollouts: Sequence[Rollout], rewards: list[Reward]) -> list[Reward]:
        """Ask once more, `loop.rescore` times, about the rollouts that could not be judged."""
        for _ in range(self._config.loop.rescore):
            unknown = [i for i, reward in enumerate(rewards) if reward.error is not None]
            again = self._parts.reward_model.score([rollouts[i] for i in unknown]) if unknown else []
            for i, reward in zip(unknown, again, strict=True):
                rewards[i] = replace(reward, cost_usd=reward.cost_usd + rewards[i].cost_usd)
        return rewards

    def _account(self, rewards: Sequence[Reward], tally: Tally) -> None:
        errors = [reward.error for reward in rewards if reward.error is not None]
        for value in [reward.value for reward in rewards if reward.value is not None]:
            tally.add({"imagined_success": value})
        tally.add({"rollouts": len(rewards), "unscored": len(errors), "cost_usd": sum(r.cost_usd for r in rewards)})
        if len(errors) > self._config.loop.max_error_rate * len(rewards):
            raise RewardsFailing(
                f"{len(errors)} of {len(rewards)} rollouts could not be judged (limit loop.max_error_rate="
                f"{self._config.loop.max_error_rate}). First error: {errors[0]} Nothing was learned from them. "
                f"When the reward model works again: gymnast train --resume {self._folder}"
            )

    def _next_task(self) -> Task:
        """Tasks in an order drawn anew from the seed for every pass over the dataset."""
        epoch, position = divmod(self.task_cursor, len(self._parts.tasks))
        generator = seeded_generator(self._config.seed, "tasks", epoch)
        index = int(torch.randperm(len(self._parts.tasks), generator=generator)[position])
        self.task_cursor += 1
        return self._parts.tasks[index]

    def _update(self, groups: Sequence[Group], iteration: int, tally: Tally) -> None:
        optimizer = self._parts.optimizer
        rewards_GK = torch.stack([group.values_K for group in groups])
        valid_GK = ~rewards_GK.isnan()
        advantages_B = optimizer.advantages(rewards_GK.nan_to_num(0.0), valid_GK)[valid_GK]
        judged = [(r, w) for g in groups for r, w in zip(g.rollouts, g.rewards, strict=True) if w.value is not None]
        trajectories = [replace(r, finish_step=w.finish_step or r.finish_step) for r, w in judged]
        for epoch in range(optimizer.epochs):
            generator = seeded_generator(self._config.seed, "update", iteration, epoch)
            order = torch.randperm(len(trajectories), generator=generator).tolist()
            for first in range(0, len(order), optimizer.minibatch_size):
                chosen = order[first : first + optimizer.minibatch_size]
                if not self._gradient_step([trajectories[i] for i in chosen], advantages_B[chosen], generator, tally):
                    return

    def _gradient_step(
        self, rollouts: list[Rollout], advantages_B: Tensor, generator: torch.Generator, tally: Tally
    ) -> bool:
        """One clipped update; False if the optimizer wants to stop working on this batch (no step is taken then)."""
        rl, torch_optimizer = self._parts.optimizer, self._torch_optimizer()
        torch_optimizer.zero_grad(set_to_none=True)
        metrics = Tally()
        demo_weight = rl.demonstrations_per_rollout / (1 + rl.demonstrations_per_rollout)
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        micro = self._config.loop.micro_batch_size or math.ceil(len(rollouts) / ranks)
        shares = [slice(first, first + micro) for first in range(0, len(rollouts), micro)]
        for first in range(0, len(shares), ranks):
            # Every process takes part in every backward pass, if need be with nothing to say.
            idle = first + rank >= len(shares)
            part = shares[0 if idle else first + rank]
            loss = self._policy_loss(rollouts[part], advantages_B[part])
            share = 0.0 if idle else len(rollouts[part]) / len(rollouts)
            # Gradients are averaged over the processes.
            self.manual_backward(loss.value * share * ranks * (1 - demo_weight))
            metrics.add({"policy_loss": float(loss.value.detach()), **loss.metrics}, weight=share)
        if demo_weight:
            loss = self._demonstration_loss(math.ceil(len(rollouts) * rl.demonstrations_per_rollout), generator)
            self.manual_backward(loss.value * demo_weight)
            metrics.add({"demonstration_loss": float(loss.value.detach())})
        metrics.gather()
        if rl.should_stop(metrics.means()):
            tally.add({"stopped_early": 1.0})
            return False
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), rl.max_grad_norm, error_if_nonfinite=True)
        rate = rl.learning_rate(self.updates)
        for group in torch_optimizer.param_groups:
            group["lr"] = rate
        torch_optimizer.step()
        self.updates += 1
        tally.add(metrics.means() | {"grad_norm": float(norm), "learning_rate": rate, "stopped_early": 0.0})
        return True

    def _policy_loss(self, rollouts: Sequence[Rollout], advantages_B: Tensor) -> Loss:
        observation, chunk = decisions(rollouts, self.device)
        batch, temperature = len(rollouts), rollouts[0].temperature
        log_prob, entropy = self.policy.evaluate(observation, chunk, temperature=temperature)
        reference = None
        if self._reference:
            with torch.no_grad():
                reference, _ = self._reference[0].evaluate(observation, chunk, temperature=temperature)
            reference = reference.reshape(batch, -1)
        mask_BS = step_mask(rollouts, log_prob.shape[-1]).to(self.device)
        loss = self._parts.optimizer.loss(
            log_prob.reshape(batch, -1),
            chunk.log_prob_BLD.reshape(batch, -1),
            advantages_B.to(self.device),
            mask_BS,
            reference,
        )
        mean_entropy = float(entropy.detach().reshape(batch, -1)[mask_BS].mean())
        return Loss(loss.value, {**loss.metrics, "entropy": mean_entropy})

    def _demonstration_loss(self, count: int, generator: torch.Generator) -> Loss:
        demonstrations = self._parts.demonstrations
        indices = torch.randint(len(demonstrations), (count,), generator=generator).tolist()
        return self.policy.imitation_loss([demonstrations[i] for i in indices], generator=generator)

    def _torch_optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    def snapshot(self) -> Path:
        """Write everything that the next iteration depends on."""
        state = {name: getattr(self, name) for name in _COUNTERS} | {
            "policy": dict(self.policy.state_dict()),
            "optimizer": self._torch_optimizer().state_dict(),
            "surplus": [
                {"rollouts": [rollout_to_state(r) for r in g.rollouts], "rewards": [asdict(r) for r in g.rewards]}
                for g in self.surplus
            ],
        }
        return save_snapshot(self._folder / "snapshots", self.iteration, state)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue after the iteration of a snapshot."""
        self.policy.load_state_dict(state["policy"])
        self._optimizer_state = state["optimizer"]
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self.surplus = [
            Group([rollout_from_state(r) for r in g["rollouts"]], [Reward(**r) for r in g["rewards"]])
            for g in state["surplus"]
        ]


def decisions(rollouts: Sequence[Rollout], device: torch.device) -> tuple[Observation, ActionChunk]:
    """The B·N decisions of B rollouts, in order, as the policy saw and made them."""
    chunk_length = rollouts[0].actions_NLA.shape[1]
    images = torch.cat([rollout.frames_THWC[:-1:chunk_length] for rollout in rollouts])[:, None]
    instructions = tuple(r.task.instruction for r in rollouts for _ in range(r.actions_NLA.shape[0]))
    tokens = [rollout.tokens_NLD for rollout in rollouts if rollout.tokens_NLD is not None]
    chunk = ActionChunk(
        actions_BLA=torch.cat([rollout.actions_NLA for rollout in rollouts]).to(device),
        log_prob_BLD=torch.cat([rollout.log_prob_NLD for rollout in rollouts]).to(device),
        tokens_BLD=torch.cat(tokens).to(device) if tokens else None,
    )
    return Observation(images_BVHWC=images, instructions=instructions).to(device), chunk


def step_mask(rollouts: Sequence[Rollout], factors: int) -> Tensor:
    """bool (B, N·L·D): True for actions up to the finish step (all of them when it is unknown)."""
    horizon = rollouts[0].horizon
    finish = torch.tensor([horizon if r.finish_step is None else r.finish_step for r in rollouts])
    return (torch.arange(horizon)[None] < finish[:, None]).repeat_interleave(factors, dim=1)
