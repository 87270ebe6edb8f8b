"""What the policy computes while it acts and learns, counted on its network without content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gymnast_core.training.masters import MasterWeights, put
from gymnast_core.training.rounding import is_coarse
from gymnast_openvla_oft.decoding import score
from gymnast_openvla_oft.dry_run import Pass, depths, forward, shallow, shaped_model
from gymnast_openvla_oft.dtypes import DTYPES
from gymnast_openvla_oft.model import ModelShape
from gymnast_openvla_oft.tuning import Tuning
from gymnast_plan.work import Op, Traced, Work, add, trace


@dataclass(frozen=True)
class Policy:
    """All that its work depends on."""

    shape: ModelShape
    dtype: str
    tuning: Tuning
    actions: int
    """K, action tokens a decision."""
    views: int = 1
    mixed: bool = False
    """Whether the update computes under bf16-mixed."""
    features: bool = False
    """Whether the update is given the features of frozen towers."""
    causal: bool = False
    """Plain OpenVLA: a pass for each action token (the prompt's once)."""
    attention: str = "sdpa"
    """Kernel of the attention."""


def acting(policy: Policy) -> Callable[[int], Work]:
    """The work of one decision in a number of episodes."""

    def run(shape: ModelShape) -> Traced:
        model, mode = shaped_model(shape, DTYPES[policy.dtype], policy.tuning, policy.attention)

        def decide(batch: int) -> None:
            with mode, torch.no_grad():
                forward(model, Pass(batch, policy.actions, policy.views)).softmax(-1)

        return Traced(decide)

    return _by_layers(policy.shape, run)


def learning(policy: Policy) -> Callable[[int], Work]:
    """The work of the gradient of a number of decisions."""

    def run(shape: ModelShape) -> Traced:
        model, mode = shaped_model(shape, DTYPES[policy.dtype], policy.tuning, policy.attention)
        size = Pass(1, policy.actions, policy.views)

        def learn(batch: int) -> None:
            with mode:
                with torch.autocast("cpu", torch.bfloat16) if policy.mixed else nullcontext():
                    logits = forward(model, replace(size, batch=batch), policy.features)
                    classes = torch.zeros(logits.shape[:2], dtype=torch.long)
                    log_prob, entropy = score(logits, classes, 1.0)
                    loss = log_prob.sum() + 0.0 * entropy.sum()
                loss.backward()
                if policy.tuning.checkpointing:
                    with torch.no_grad():
                        forward(model, replace(size, batch=batch), policy.features)
                for parameter in model.parameters():
                    parameter.grad = None

        return Traced(learn)

    return _by_layers(policy.shape, run)


def stepping(trained: Sequence[nn.Parameter], make: Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]) -> Work:
    """The work of a gradient step beside its gradient: clipping, the optimizer, float32 copies of coarse weights."""
    total: Work = {}
    for (shape, dtype), count in Counter((p.shape, p.dtype) for p in trained).items():
        parameter = nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"))
        optimizer = make([parameter])
        masters = MasterWeights([parameter])
        masters.adopt(optimizer)

        def step(of: MasterWeights = masters, taken: torch.optim.Optimizer = optimizer) -> None:
            (stepped,) = of.stepped
            stepped.grad = torch.empty_like(stepped)
            nn.utils.clip_grad_norm_([stepped], 1.0)
            taken.step()

        step()  # the first makes the optimizer's state
        ops = [*trace(step), *(_rounding(shape, dtype) if is_coarse(dtype) else [])]
        for op in ops:
            add(total, {op: 1.0}, count)
    return total


def _rounding(shape: torch.Size, dtype: torch.dtype) -> list[Op]:
    """What writing a float32 copy into the weights that it stands for takes."""
    with FakeTensorMode(allow_non_fake_inputs=True):  # the meta device has no random numbers
        live, fine = torch.empty(shape, dtype=dtype), torch.empty(shape)
        return trace(lambda: put(live, fine))


def _by_layers(shape: ModelShape, run: Callable[[ModelShape], Traced]) -> Callable[[int], Work]:
    """The work of a deep network from those of shallow ones: one layer more of a kind is what such a layer takes."""
    base = run(shallow(shape))
    deeper = {name: run(shallow(shape, name)) for name in depths(shape)}

    def work(batch: int) -> Work:
        first = base(batch)
        total = dict(first)
        for name, (depth, least) in depths(shape).items():
            add(total, deeper[name](batch), depth - least)
            add(total, first, least - depth)
        return total

    return work
