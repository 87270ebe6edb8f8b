"""The update: minibatches of judged rollouts, in parts if memory wants it, one clipped gradient step each.

A loss is a sum and a weight (`LossSum`). Here the sums of all parts and processes are added up and divided by the
weight of the whole minibatch, so that neither changes the step. Autocast is here and nowhere else.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from gymnast_core.errors import GymnastError
from gymnast_core.interfaces import Optimizer, Policy
from gymnast_core.learning import Advantages, Judged, Learned, Minibatch
from gymnast_core.processes import Processes
from gymnast_core.rollouts.answers import checked_evaluation
from gymnast_core.rollouts.batch import decisions, temperatures
from gymnast_core.rollouts.deal import Group
from gymnast_core.seeds import seeded_generator, skip_episodes
from gymnast_core.training.answers import (
    check_weight,
    checked_advantages,
    checked_loss,
    checked_rate,
    where_not_finite,
)
from gymnast_core.training.masters import MasterWeights, gathered_state, restore_state
from gymnast_core.training.movement import Movement, MovementWatch
from gymnast_core.training.settings import apply_changes, settings_of
from gymnast_core.training.sharding import clip_gradients
from gymnast_core.training.tally import Tally
from gymnast_core.types import ActionChunk, Episode, Evaluation, LossSum, Metric, Observation, Rollout


class NonFiniteGradient(GymnastError):
    """A gradient became infinite or NaN; no step was taken with it."""


_REMEDY = (
    "Raise optimizer.args.learning_rate. If the policy's own weights are coarser than float32, the optimizer may step "
    "parameters that it does not show in param_groups, where float32 copies cannot stand for them: set "
    "policy.args.dtype=float32, or choose another optimizer."
)


@dataclass(frozen=True)
class Term:
    """A part of the loss that is averaged on its own: its share of the whole, and what computes its parts here."""

    name: str
    share: float
    asked: object
    """The component that computes it, by `method`."""
    method: str
    parts: Sequence[Callable[[], LossSum]]
    company: Sequence[Callable[[], Tensor]] = ()
    """Zeros that depend on the policy, where other processes have more parts and its weights are shared out: each of
    them needs all processes."""


@dataclass(frozen=True)
class _Batch:
    """What this process holds of an iteration's rollouts."""

    judged: Judged
    mask_BS: Tensor
    """bool: the actions that count."""
    advantages: Advantages
    row: Mapping[tuple[int, int], int]
    """(label of the group, place in it) -> row of `judged`; judged rollouts only."""
    stand_in: Rollout | None = None
    """One to look at for company."""


class Updater:
    """Takes gradient steps on the policy and the optimizer's extra modules."""

    def __init__(
        self,
        policy: Policy,
        extra: Mapping[str, nn.Module],
        optimizer: Optimizer,
        demonstrations: Sequence[Episode],
        *,
        seed: int,
        micro_batch_size: int | None,
        precision: str,
        processes: Processes,
    ) -> None:
        self._policy, self._optimizer = policy, optimizer
        self._trained: list[nn.Module] = [policy, *extra.values()]
        self._demonstrations, self._seed, self._micro = demonstrations, seed, micro_batch_size
        self._precision, self._processes = precision, processes
        self.reference: Policy | None = None
        """The frozen initial policy, if the optimizer needs it (`hold`)."""
        self._torch_optimizer: torch.optim.Optimizer | None = None
        self._settings: list[dict[str, Any]] = []
        self.masters = MasterWeights([])
        """Float32 copies of what is trained in a coarser dtype."""
        self._watch = MovementWatch(_REMEDY)
        self.updates = 0
        """Gradient steps taken, over the whole run."""
        self.shared_out = False
        """Whether each process holds a part of what learns."""

    def share_out(self, learner: Policy) -> None:
        """Let a copy of the policy learn in its place, of which each process holds a part."""
        self._policy, self._trained, self.shared_out = learner, [learner, *self._trained[1:]], True

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [parameter for module in self._trained for parameter in module.parameters() if parameter.requires_grad]

    @property
    def torch_optimizer(self) -> torch.optim.Optimizer | None:
        """Takes the steps. It is given for `parameters`, when those are on their device, and steps their copies."""
        return self._torch_optimizer

    @torch_optimizer.setter
    def torch_optimizer(self, optimizer: torch.optim.Optimizer | None) -> None:
        self._torch_optimizer = optimizer
        self.masters = MasterWeights(self.parameters)
        if optimizer is not None:
            self._settings = settings_of(optimizer)
            self.masters.adopt(optimizer)
            if self._processes.leads:
                self.masters.announce()

    def hold(self, reference: Policy) -> None:
        """Compare with a copy of the policy as it was before it learned, whose weights become those that it computes
        with. Call it once the gradient optimizer is there."""
        if self._mixed:
            self.masters.round_alike(reference, torch.bfloat16, of=self._policy)
        self.reference = reference

    @property
    def _mixed(self) -> bool:
        return self._precision == "bf16-mixed"

    def update(self, groups: Sequence[Group], iteration: int, tally: Tally) -> Learned:
        """Learn from the kept groups of all processes, of which these are this one's. Returns what that rested on."""
        batch = self._prepare(groups)
        learned = Learned(batch.judged, batch.advantages)
        by_process = self._processes.gather(list(batch.row))
        everyone = sorted(key for theirs in by_process for key in theirs)
        if self.shared_out and everyone and not all(by_process):
            batch = replace(batch, stand_in=self._stand_in(batch, by_process))
        for epoch in range(self._optimizer.epochs):
            generator = seeded_generator(self._seed, "update", iteration, epoch)
            order = [everyone[index] for index in torch.randperm(len(everyone), generator=generator).tolist()]
            for first in range(0, len(order), self._optimizer.minibatch_size):
                chosen = order[first : first + self._optimizer.minibatch_size]
                if not self._gradient_step(batch, chosen, (iteration, epoch, first), tally):
                    return learned
        return learned

    def _prepare(self, groups: Sequence[Group]) -> _Batch:
        rollouts = tuple(rollout for group in groups for rollout in group.rollouts)
        rewards = tuple(reward for group in groups for reward in group.rewards)
        judged = Judged(rollouts, rewards, self._optimizer.group_size)
        keys = [(group.label, place) for group in groups for place in range(len(group.rollouts))]
        row = {key: index for index, key in enumerate(keys) if rewards[index].value is not None}
        advantages = checked_advantages(self._optimizer, self._optimizer.advantages(judged), judged)
        return _Batch(judged, judged.mask_BS, advantages, row)

    def _gradient_step(
        self, batch: _Batch, chosen: Sequence[tuple[int, int]], place: tuple[int, int, int], tally: Tally
    ) -> bool:
        """One clipped update; False if the optimizer wants to stop working on this batch (no step is taken then)."""
        assert self.torch_optimizer is not None
        self.masters.follow()
        for parameter in self.masters.stepped:
            parameter.grad = None
        metrics = Tally()
        mine = [batch.row[key] for key in chosen if key in batch.row]
        terms = list(self._terms(batch, mine, len(chosen), place))
        with self.masters.computing_in(torch.bfloat16, of=self._policy) if self._mixed else nullcontext():
            self._accumulate(terms, metrics)
        combined = metrics.combined(self._processes)
        # From here on the numbers are of all processes, and are counted once.
        counted = tally if self._processes.leads else Tally()
        if self._optimizer.should_stop({name: float(metric.value) for name, metric in combined.items()}):
            counted.add({"stopped_early": Metric(1.0)})
            return False
        norm = clip_gradients(self.masters.stepped, self._optimizer.max_grad_norm)
        if not bool(torch.isfinite(norm)):
            raise self._not_finite(batch, mine)
        rate = checked_rate(self._optimizer, self.updates)
        for group in self.torch_optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        movement = Movement(self.masters.stepped)
        self.torch_optimizer.step()
        unmoved = movement.unmoved()
        self.masters.write()
        self.updates += 1
        counted.add(combined)
        counted.add({"grad_norm": Metric(norm), "learning_rate": Metric(rate), "stopped_early": Metric(0.0)})
        counted.add({"unmoved": unmoved})
        if self._processes.leads:
            self._watch.see(movement, unmoved, rate, self.updates)
        return True

    def _not_finite(self, batch: _Batch, mine: Sequence[int]) -> NonFiniteGradient:
        origin = ""
        if not self.shared_out:  # where weights are shared out, all processes would have to look
            minibatches = (self._minibatch(batch, [row]) for row in mine)
            with torch.no_grad(), self.autocast():
                origin = where_not_finite(self._policy, self._optimizer, minibatches)
        gradient = f"A gradient of the policy became infinite or NaN in gradient step {self.updates + 1}"
        if not origin:
            return NonFiniteGradient(
                f"{gradient}; no step was taken with it. Go on from the last snapshot with a lower "
                "optimizer.args.learning_rate."
            )
        return NonFiniteGradient(
            f"{origin}{gradient}; no step was taken with it. `gymnast check` tries the plugin. If the numbers grew "
            "from step to step, go on from the last snapshot with a lower optimizer.args.learning_rate."
        )

    def _terms(self, batch: _Batch, mine: Sequence[int], count: int, place: tuple[int, int, int]) -> Iterator[Term]:
        """What the step's loss is made of: the policy's loss and, for algorithms that want it, imitation."""
        ratio = self._optimizer.demonstrations_per_rollout
        micro = self._micro or max(len(mine), 1)
        rows = [mine[first : first + micro] for first in range(0, len(mine), micro)]
        losses = [partial(self._policy_loss, batch, part) for part in rows]
        # Every process computes as often as the others: each time, all of them gather weights and add up gradients.
        alone = max(self._processes.gather(len(rows))) - len(rows) if self.shared_out else 0
        company = alone * [partial(self._nothing, batch)]
        yield Term("loss", 1 / (1 + ratio), self._optimizer, "loss", losses, company)
        if ratio:
            drawn = self._draw_demonstrations(math.ceil(count * ratio), place)
            rank, processes = self._processes.rank, self._processes.count
            own = range(len(drawn) * rank // processes, len(drawn) * (rank + 1) // processes)
            micro = self._micro or max(len(own), 1)
            parts = [own[first : first + micro] for first in range(0, len(own), micro)]
            losses = [
                partial(self._demonstration_loss, drawn[part.start : part.stop], part.start, place) for part in parts
            ]
            yield Term("demonstration_loss", ratio / (1 + ratio), self._policy, "imitation_loss", losses)

    def _accumulate(self, terms: Sequence[Term], metrics: Tally) -> None:
        """Leave the gradient of the weighed sum of the terms' means, over all processes, in the parameters."""
        parameters = self.masters.stepped
        added: list[Tensor | None] = [None for _ in parameters]
        for term in terms:
            weights, totals = list[Tensor](), list[Tensor]()
            for part in term.parts:
                with self.autocast():
                    loss = part()
                if loss.total.requires_grad:
                    loss.total.backward()
                self.masters.take_gradients()
                weights.append(torch.as_tensor(loss.weight).detach())
                totals.append(loss.total.detach())
                metrics.add(loss.metrics)
                metrics.add({term.name: Metric(loss.mean.detach(), weights[-1])})
                # The next part finds the memory of this one: what is left of a graph would lie amidst what was freed.
                del loss
            for zero in term.company:
                with self.autocast():
                    nothing = zero()
                nothing.backward()
                self.masters.take_gradients()
                del nothing
            total = self._weight(term, weights, totals)
            scale = term.share / total if total > 0 else 0.0
            for index, parameter in enumerate(parameters):
                if parameter.grad is None:
                    continue
                scaled = parameter.grad.mul_(scale)
                earlier = added[index]
                added[index] = scaled if earlier is None else earlier.add_(scaled)
                parameter.grad = None
        for parameter, gradient in zip(parameters, added, strict=True):
            parameter.grad = gradient
        self._processes.sum_gradients([p for p in parameters if not isinstance(p, DTensor)])

    def _weight(self, term: Term, weights: Sequence[Tensor], totals: Sequence[Tensor]) -> float:
        """The weight of all microbatches of all processes; the device is waited for once. Raises `ContractError` if
        one of them would teach nothing, or the opposite, in silence."""
        place = totals[0].device if totals else None
        numbers = [
            torch.stack([pair.to(place).double() for pair in pairs]) for pairs in zip(weights, totals, strict=True)
        ]
        found = torch.stack(numbers).tolist() if numbers else []
        for weight, total in found:
            check_weight(term.asked, term.method, weight, total)
        own = sum(weight for weight, _ in found) if found else 0.0
        return own if self._processes.count == 1 else sum(self._processes.gather(own))

    def _minibatch(self, batch: _Batch, rows: Sequence[int]) -> Minibatch:
        """Some trajectories as the weights see them, at the temperature of each; what is imitated, at temperature 1."""
        device = next(self._policy.parameters()).device
        rollouts = tuple(batch.judged.rollouts[row] for row in rows)
        observation, chunk = decisions(rollouts, self._policy.needed, device)
        temperature_B = temperatures(rollouts, device)
        if self._optimizer.imitates:
            temperature_B = torch.ones_like(temperature_B)
        count, horizon = len(rollouts), rollouts[0].horizon
        found = _evaluated(self._policy, observation, chunk, temperature_B)
        reference = None
        if self.reference is not None:
            with torch.no_grad():
                reference = _evaluated(self.reference, observation, chunk, temperature_B).log_prob_BLD
        chosen = torch.tensor(rows)
        return Minibatch(
            rollouts=rollouts,
            observation=observation,
            chunk=chunk,
            log_prob_BSD=found.log_prob_BLD.reshape(count, horizon, -1),
            entropy_BSD=found.entropy_BLD.reshape(count, horizon, -1),
            old_log_prob_BSD=chunk.log_prob_BLD.reshape(count, horizon, -1),
            advantages_BS=batch.advantages.advantages_BS[chosen].to(device),
            mask_BS=batch.mask_BS[chosen].to(device),
            reference_log_prob_BSD=None if reference is None else reference.reshape(count, horizon, -1),
            features_BNF=None
            if found.features_BF is None
            else found.features_BF.reshape(count, -1, found.features_BF.shape[-1]),
            targets={name: target[chosen].to(device) for name, target in batch.advantages.targets.items()},
        )

    def _policy_loss(self, batch: _Batch, rows: Sequence[int]) -> LossSum:
        """The optimizer's loss of some trajectories."""
        minibatch = self._minibatch(batch, rows)
        mask_BS = minibatch.mask_BS
        loss = checked_loss(self._optimizer, "loss", self._optimizer.loss(minibatch))
        if self.shared_out and not loss.total.requires_grad:
            loss = replace(loss, total=loss.total + 0.0 * minibatch.log_prob_BSD.sum())
        counted_BSD = minibatch.entropy_BSD.detach() * mask_BS[..., None]
        factors = mask_BS.sum() * counted_BSD.shape[-1]
        entropy = Metric(counted_BSD.sum() / factors.clamp(min=1), factors)
        return LossSum(loss.total, loss.weight, {"entropy": entropy, **loss.metrics})

    def _stand_in(self, batch: _Batch, by_process: Sequence[Sequence[tuple[int, int]]]) -> Rollout:
        """The first rollout that any process learns from, in all of them."""
        first = next(rank for rank, theirs in enumerate(by_process) if theirs)
        mine = batch.judged.rollouts[min(batch.row.values())] if first == self._processes.rank else None
        return next(rollout for rollout in self._processes.gather(mine) if rollout is not None)

    def _nothing(self, batch: _Batch) -> Tensor:
        """Zero, computed by the policy: its gradient is zero, too."""
        device = next(self._policy.parameters()).device
        rollouts = (batch.stand_in or batch.judged.rollouts[min(batch.row.values())],)
        observation, chunk = decisions(rollouts, self._policy.needed, device)
        found = _evaluated(self._policy, observation, chunk, temperatures(rollouts, device))
        return 0.0 * found.log_prob_BLD.sum()

    def _draw_demonstrations(self, count: int, place: tuple[int, int, int]) -> list[Episode]:
        """The same ones in all processes."""
        generator = seeded_generator(self._seed, "demonstrations", *place)
        indices = torch.randint(len(self._demonstrations), (count,), generator=generator).tolist()
        return [self._demonstrations[index] for index in indices]

    def _demonstration_loss(self, drawn: Sequence[Episode], first: int, place: tuple[int, int, int]) -> LossSum:
        """The imitation loss of drawn demonstrations of which `first` come before: their randomness is their own."""
        generator = skip_episodes(seeded_generator(self._seed, "demonstration", *place), first)
        found = self._policy.imitation_loss(drawn, generator=generator)
        return checked_loss(self._policy, "imitation_loss", found)

    def autocast(self) -> AbstractContextManager[Any]:
        """What `trainer.precision` says, around a loss."""
        if self._precision != "bf16-mixed":
            return nullcontext()
        return torch.autocast(next(self._policy.parameters()).device.type, dtype=torch.bfloat16)

    def state_dict(self) -> dict[str, Any]:
        optimizer = self.torch_optimizer
        return {
            "updates": self.updates,
            "torch_optimizer": None if optimizer is None else self._optimizer_state(optimizer),
            "settings": self._settings,
            "weights": self.masters.state_dict(),
        }

    def _optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return gathered_state(optimizer) if self.shared_out else optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """After `torch_optimizer` is there."""
        self.updates = state["updates"]
        if self.torch_optimizer is not None:
            if self.shared_out:
                restore_state(self.torch_optimizer, state["torch_optimizer"])
            else:
                self.torch_optimizer.load_state_dict(state["torch_optimizer"])
            if "settings" in state:  # an earlier edition kept none
                apply_changes(self.torch_optimizer, self._settings, state["settings"])
            if "weights" in state:  # an earlier edition kept no copies
                self.masters.load_state_dict(state["weights"])


def _evaluated(policy: Policy, observation: Observation, chunk: ActionChunk, temperature_B: Tensor) -> Evaluation:
    return checked_evaluation(policy, policy.evaluate(observation, chunk, temperature=temperature_B), chunk)
