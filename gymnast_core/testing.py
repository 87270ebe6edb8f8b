"""Contract checks for plugin authors: raise `ContractError` at the first breach, return what was verified.

>>> from gymnast_core.testing import check_world_model
>>> check_world_model(MyWorldModel(MyWorldModel.Config()), action_dim=7)

Every check takes the component or a function that builds it. It makes its own tasks (uniform noise) unless
given `tasks`: pass two or more that your plugin can work with, e.g. ones of its environment.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gymnast_core.errors import ContractError, DataError
from gymnast_core.interfaces import Optimizer, Policy, RewardModel, Trainable, WorldModel
from gymnast_core.types import ActionChunk, Observation, Reward, Rollout, Task


class _Contract:
    """Expectations on one component; `verified` grows with each clause that holds."""

    def __init__(self, component: Any, interface: type) -> None:
        self.label = type(component).__name__
        self.interface = interface.__name__
        self.verified: list[str] = []
        if not isinstance(component, interface):
            raise ContractError(f"{self.label} is not a {self.interface} of gymnast_core.interfaces.")

    def expect(self, holds: bool, method: str, expected: str, got: object) -> None:
        if not holds:
            place = f"gymnast_core.interfaces.{self.interface}.{method}"
            raise ContractError(f"{self.label}.{method}: expected {expected}; got {got}. See {place}.")

    def tensor(self, value: Any, method: str, name: str, shape: Sequence[int], dtype: torch.dtype) -> None:
        got = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        is_right = isinstance(value, Tensor) and tuple(value.shape) == tuple(shape) and value.dtype == dtype
        self.expect(is_right, method, f"{name} to be {tuple(shape)} {dtype}", got)
        self.expect(bool(torch.isfinite(value).all()), method, f"{name} to be finite", "NaN or infinity")

    @contextmanager
    def untouched(self, method: str, **inputs: Any) -> Iterator[None]:
        """The inputs and the global random state are the same before and after."""
        before = {name: [tensor.clone() for tensor in _tensors(value)] for name, value in inputs.items()}
        random_state = torch.random.get_rng_state()
        yield
        for name, tensors in before.items():
            same = all(map(torch.equal, tensors, _tensors(inputs[name])))
            self.expect(same, method, f"{name} to be left as it was", "modified values")
        same = torch.equal(random_state, torch.random.get_rng_state())
        self.expect(same, method, "randomness from `generator` only", "draws from the global generator")


def check_world_model(
    world_model: WorldModel | Callable[[], WorldModel],
    *,
    tasks: Sequence[Task] | None = None,
    action_dim: int | None = None,
    image_size: int | None = None,
) -> list[str]:
    """Check `reset`, `step`, `outcomes`. Sizes default to its own or its `config`'s, or 7 and 64."""
    world = _instance(world_model)
    contract = _Contract(world, WorldModel)
    size = image_size or _size_of(world, "image_size", 64)
    tasks = list(tasks or make_tasks(2, size))
    width = action_dim or _size_of(world, "action_dim", 7)
    actions_BLA = _uniform((len(tasks), 6, width), seed=1) * 0.1
    height_width = tuple(tasks[0].frames_THWC.shape[1:3])

    def episode(seed: int, state: Any = None) -> Tensor:
        state = world.reset(tasks, generator=_generator(seed)) if state is None else state
        chunks = []
        for chunk in actions_BLA.split([1, 3, 2], dim=1):
            frames = world.step(state, chunk)
            shape = (len(tasks), chunk.shape[1], *height_width, 3)
            contract.tensor(frames, "step", f"the frames after {chunk.shape[1]} actions", shape, torch.uint8)
            chunks.append((frames, frames.clone()))
        aliased = any(not torch.equal(frames, copy) for frames, copy in chunks)
        contract.expect(not aliased, "step", "returned frames to stay as they are", "changes by a later step")
        outcomes = list(world.outcomes(state))
        valid = all(value is None or 0.0 <= value <= 1.0 for value in outcomes)
        count = len(outcomes) == len(tasks)
        contract.expect(valid and count, "outcomes", f"{len(tasks)} numbers in [0, 1] or None", outcomes)
        return torch.cat([frames for frames, _ in chunks], dim=1)

    contract.expect(hasattr(world, "device"), "device", "a torch.device", "no such attribute")
    with contract.untouched("step", tasks=tasks, actions_BLA=actions_BLA):
        first = episode(seed=3)
    contract.verified += ["frames are uint8 (B, L, H, W, 3) for any chunk length", "inputs are not modified"]
    same = torch.equal(first, episode(seed=3))
    contract.expect(same, "reset", "the same frames from the same seed", "different frames")
    contract.verified.append("the same generator seed gives the same frames")
    state, other = world.reset(tasks, generator=_generator(3)), world.reset(tasks, generator=_generator(4))
    world.step(other, -actions_BLA)
    same = torch.equal(first, episode(seed=3, state=state))
    contract.expect(same, "reset", "states that do not influence each other", "others beside a second state")
    contract.verified.append("states alive at once are independent")
    with _raises(contract, "step", f"a DataError for actions of width {width + 1}, not {width}"):
        world.step(world.reset(tasks, generator=_generator(3)), torch.zeros(len(tasks), 1, width + 1))
    contract.verified.append("actions of the wrong width are a DataError")
    return contract.verified


def check_policy(
    policy: Policy | Callable[[], Policy],
    *,
    tasks: Sequence[Task] | None = None,
    image_size: int = 64,
    proprio_dim: int | None = None,
    tolerance: float = 1e-3,
    reload: Callable[[Path], Policy] | None = None,
) -> list[str]:
    """Check `act`, `evaluate` and, where it exists, `save`.

    `tolerance` (nats) bounds how log-probabilities differ between batch sizes and from `act` to `evaluate`.
    `reload` builds the policy from a saved folder; by default its `Config` is given `checkpoint=FOLDER`.
    """
    subject = _instance(policy)
    contract = _Contract(subject, Policy)
    observation = _observe(tasks or make_tasks(3, image_size), proprio_dim)
    was_training = subject.training
    subject.eval()
    try:
        for temperature in (1.0, 0.7):
            _check_act(contract, subject, observation, temperature, tolerance)
        _check_greedy(contract, subject, observation, tolerance)
        _check_gradient(contract, subject, observation)
        if type(subject).save is not Trainable.save:
            _check_policy_save(contract, subject, observation, tolerance, reload)
    finally:
        subject.train(was_training)
    return contract.verified


def check_reward_model(
    reward_model: RewardModel | Callable[[], RewardModel],
    *,
    tasks: Sequence[Task] | None = None,
    image_size: int = 64,
    action_dim: int = 7,
    deterministic: bool = True,
    tolerance: float = 1e-3,
) -> list[str]:
    """Check `score`. `deterministic=False` skips comparing calls, for judges that sample their answers."""
    judge = _instance(reward_model)
    contract = _Contract(judge, RewardModel)
    rollouts = make_rollouts(tasks or make_tasks(4, image_size), action_dim)
    with contract.untouched("score", rollouts=rollouts):
        rewards = judge.score(rollouts)
    contract.verified.append("rollouts are not modified")

    def expect_rewards(found: Any, count: int) -> None:
        is_list = isinstance(found, list) and all(isinstance(reward, Reward) for reward in found)
        contract.expect(is_list and len(found) == count, "score", f"a list of {count} Rewards", found)
        for reward in found:
            exclusive = (reward.value is None) != (reward.error is None)
            contract.expect(exclusive, "score", "either a value or an error", reward)
            contract.expect(
                math.isfinite(reward.cost_usd) and reward.cost_usd >= 0, "score", "a cost", reward
            )

    expect_rewards(rewards, len(rollouts))
    expect_rewards(judge.score([]), 0)
    contract.verified.append("one Reward per rollout, with a value or an error")
    if deterministic:
        alone = [judge.score([rollout])[0] for rollout in rollouts]
        backwards = judge.score(rollouts[::-1])[::-1]
        for what, again in (("on its own", alone), ("in reverse order", backwards)):
            same = all(_close(a.value, b.value, tolerance) for a, b in zip(rewards, again, strict=True))
            contract.expect(same, "score", f"the same reward {what} as in the batch", (rewards, again))
        contract.verified += ["rewards are in order", "a reward does not depend on the other rollouts"]
    return contract.verified


def check_optimizer(
    optimizer: Optimizer | Callable[[], Optimizer],
    *,
    group_relative: bool | None = None,
    scale_invariant: bool | None = None,
    tolerance: float = 1e-3,
) -> list[str]:
    """Check `keep`, `advantages`, `loss` and the gradient steps.

    Advantages that sum to 0 within a group are taken to be group-relative: shifting the rewards must not
    change them and equal rewards must give 0. If halving the rewards changes nothing in one group, it must
    not in any. `group_relative` and `scale_invariant` say what to demand instead of finding it out.
    """
    subject = _instance(optimizer)
    contract = _Contract(subject, Optimizer)
    for name in ("group_size", "epochs", "minibatch_size", "max_grad_norm"):
        value = getattr(subject, name, None)
        contract.expect(isinstance(value, int | float) and value > 0, name, "a positive number", value)
    _check_advantages(contract, subject, group_relative, scale_invariant, tolerance)
    _check_loss(contract, subject)
    parameters = [torch.nn.Parameter(torch.zeros(4, 4)), torch.nn.Parameter(torch.zeros(4))]
    stepper = subject.torch_optimizer(parameters)
    held = isinstance(stepper, torch.optim.Optimizer) and {
        id(parameter) for group in stepper.param_groups for parameter in group["params"]
    } == {id(parameter) for parameter in parameters}
    contract.expect(held, "torch_optimizer", "a torch optimizer of exactly the given parameters", stepper)
    rates = [subject.learning_rate(update) for update in (0, 1, 1000)]
    valid = all(math.isfinite(rate) and rate >= 0 for rate in rates)
    contract.expect(valid, "learning_rate", "a number >= 0 for every update", rates)
    contract.verified.append("torch_optimizer holds every parameter; learning rates are finite")
    return contract.verified


CHECKS: dict[str, Callable[..., list[str]]] = {
    "world model": check_world_model,
    "policy": check_policy,
    "reward model": check_reward_model,
    "optimizer": check_optimizer,
}
"""The check of each kind of plugin, as `gymnast check` runs it."""


def make_tasks(count: int, image_size: int = 64, seed: int = 0) -> list[Task]:
    """Tasks with one context frame of uniform noise, uint8 (1, image_size, image_size, 3)."""
    frames = (_uniform((count, 1, image_size, image_size, 3), seed) * 127.5 + 127.5).to(torch.uint8)
    colours = ("red", "green", "blue", "yellow")
    return [
        Task(f"check-{i}", f"push the {colours[i % 4]} block to the left", frames[i]) for i in range(count)
    ]


def make_rollouts(
    tasks: Sequence[Task], action_dim: int = 7, chunks: int = 2, chunk: int = 3
) -> list[Rollout]:
    """One rollout of N = `chunks` decisions for each task; frames after the first are uniform noise."""
    rollouts = []
    for i, task in enumerate(tasks):
        start = task.frames_THWC[-1:]
        noise = (_uniform((chunks * chunk, *start.shape[1:]), i) * 127.5 + 127.5).to(torch.uint8)
        actions_NLA = _uniform((chunks, chunk, action_dim), i) * 0.1
        log_prob_NLD = torch.full((chunks, chunk, action_dim), -1.0)
        rollouts.append(Rollout(task, i, torch.cat([start, noise]), actions_NLA, log_prob_NLD, 1.0))
    return rollouts


def _check_act(
    contract: _Contract, policy: Policy, observation: Observation, temperature: float, tolerance: float
) -> None:
    def act(seed: int) -> ActionChunk:
        return policy.act(observation, temperature=temperature, generator=_generator(seed))

    with contract.untouched("act", observation=observation):
        chunk = act(5)
    shape = (len(observation.instructions), policy.chunk_length)
    contract.tensor(chunk.actions_BLA, "act", "actions_BLA", (*shape, policy.action_dim), torch.float32)
    factors = (*shape, chunk.log_prob_BLD.shape[-1])
    contract.expect(factors[2] in (1, policy.action_dim), "act", "D = 1 or A factors", factors[2])
    contract.tensor(chunk.log_prob_BLD, "act", "log_prob_BLD", factors, torch.float32)
    contract.expect(
        not chunk.log_prob_BLD.requires_grad, "act", "no gradients", "log_prob that requires grad"
    )
    if chunk.tokens_BLD is not None:
        contract.tensor(chunk.tokens_BLD, "act", "tokens_BLD", factors, torch.int64)
        contract.expect(bool((chunk.log_prob_BLD <= 1e-5).all()), "act", "log_prob <= 0", "positive values")
    same = all(map(torch.equal, _tensors(chunk), _tensors(act(5))))
    contract.expect(same, "act", "the same chunk from the same seed", "another chunk")
    contract.verified.append(f"act is repeatable under a seed at temperature {temperature}")
    with contract.untouched("evaluate", observation=observation, chunk=chunk), torch.no_grad():
        log_prob, entropy = policy.evaluate(observation, chunk, temperature=temperature)
    contract.expect(
        log_prob.shape == factors, "evaluate", f"log_prob of shape {factors}", tuple(log_prob.shape)
    )
    contract.expect(entropy.shape == factors, "evaluate", f"entropy of shape {factors}", tuple(entropy.shape))
    contract.expect(bool(torch.isfinite(entropy).all()), "evaluate", "finite entropy", entropy)
    _expect_close(contract, "evaluate", "act's log-probabilities", log_prob, chunk.log_prob_BLD, tolerance)
    alone = dataclasses.replace(
        observation,
        images_BVHWC=observation.images_BVHWC[:1],
        instructions=observation.instructions[:1],
        proprio_BP=None if observation.proprio_BP is None else observation.proprio_BP[:1],
    )
    tokens = None if chunk.tokens_BLD is None else chunk.tokens_BLD[:1]
    first = ActionChunk(chunk.actions_BLA[:1], chunk.log_prob_BLD[:1], tokens)
    with torch.no_grad():
        single, _ = policy.evaluate(alone, first, temperature=temperature)
    _expect_close(contract, "evaluate", "the same in any batch", single, log_prob[:1], tolerance)
    contract.verified.append(f"evaluate agrees with act at temperature {temperature}, in any batch")


def _check_greedy(contract: _Contract, policy: Policy, observation: Observation, tolerance: float) -> None:
    first, second = (policy.act(observation, temperature=0.0, generator=_generator(s)) for s in (1, 2))
    same = torch.equal(first.actions_BLA, second.actions_BLA)
    contract.expect(same, "act", "one most likely action at temperature 0", "different actions")
    with torch.no_grad():
        log_prob, _ = policy.evaluate(observation, first, temperature=1.0)
    expected = "log-probabilities at temperature 1 when acting at 0"
    _expect_close(contract, "act", expected, first.log_prob_BLD, log_prob, tolerance)
    contract.verified.append("temperature 0 is repeatable")


def _check_gradient(contract: _Contract, policy: Policy, observation: Observation) -> None:
    chunk = policy.act(observation, generator=_generator(6))
    log_prob, entropy = policy.evaluate(observation, chunk)
    contract.expect(log_prob.requires_grad, "evaluate", "a differentiable log_prob", "one without gradient")
    contract.expect(entropy.requires_grad, "evaluate", "a differentiable entropy", "one without gradient")
    parameters = [parameter for parameter in policy.module().parameters() if parameter.requires_grad]
    found = [g for g in torch.autograd.grad(log_prob.sum(), parameters, allow_unused=True) if g is not None]
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in found)
    flows = finite and any(bool((gradient != 0).any()) for gradient in found)
    contract.expect(flows, "evaluate", "finite gradients that reach module()'s parameters", "none, or NaN")
    contract.verified.append("gradients reach the parameters")


def _check_policy_save(
    contract: _Contract,
    policy: Policy,
    observation: Observation,
    tolerance: float,
    reload: Callable[[Path], Policy] | None,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        policy.save(Path(folder))
        again = reload(Path(folder)) if reload else _reload(policy, Path(folder))
        if again is None:
            return
        chunk = policy.act(observation, generator=_generator(7))
        again.eval()
        with torch.no_grad():
            log_prob, _ = again.evaluate(observation, chunk)
    _expect_close(contract, "save", "the same policy when loaded", log_prob, chunk.log_prob_BLD, tolerance)
    contract.verified.append("a saved policy loads as the same policy")


def _reload(policy: Policy, folder: Path) -> Policy | None:
    component: Any = type(policy)
    if "checkpoint" not in {item.name for item in dataclasses.fields(component.Config)}:
        return None
    config = getattr(policy, "config", None)
    if isinstance(config, component.Config):
        return component(dataclasses.replace(config, checkpoint=str(folder)))
    return component(component.Config(checkpoint=str(folder)))


def _check_advantages(
    contract: _Contract, optimizer: Optimizer, relative: bool | None, scale: bool | None, tolerance: float
) -> None:
    shape = (5, max(optimizer.group_size, 2))
    rewards_GK = _uniform(shape, seed=8) * 0.4 + 0.5
    valid_GK = torch.ones(shape, dtype=torch.bool)
    with contract.untouched("advantages", rewards_GK=rewards_GK, valid_GK=valid_GK):
        base = optimizer.advantages(rewards_GK, valid_GK)
        kept = optimizer.keep(rewards_GK, valid_GK)
    contract.tensor(base, "advantages", "advantages", shape, torch.float32)
    contract.tensor(kept, "keep", "kept groups", shape[:1], torch.bool)
    order = torch.randperm(shape[1], generator=_generator(9))
    permuted = optimizer.advantages(rewards_GK[:, order], valid_GK[:, order])
    _expect_close(contract, "advantages", "permuted with their rewards", permuted, base[:, order], tolerance)

    holes_GK = valid_GK.clone()
    holes_GK[0, 0] = holes_GK[1, 1] = False
    holes_GK[2] = False
    clean = optimizer.advantages(rewards_GK.masked_fill(~holes_GK, 0.0), holes_GK)
    for junk in (1.0, 1e9, math.nan):
        dirty_GK = rewards_GK.masked_fill(~holes_GK, junk)
        found = optimizer.advantages(dirty_GK, holes_GK)
        contract.expect(bool((found[~holes_GK] == 0).all()), "advantages", "0 for unscored rollouts", found)
        _expect_close(contract, "advantages", f"unscored rewards ({junk}) to be ignored", found, clean, 0.0)
        same = torch.equal(optimizer.keep(dirty_GK, holes_GK), optimizer.keep(rewards_GK, holes_GK))
        contract.expect(same, "keep", f"unscored rewards ({junk}) to be ignored", "another choice of groups")
    nothing = bool(optimizer.keep(rewards_GK, holes_GK)[2])
    contract.expect(not nothing, "keep", "a group without any scored rollout to be dropped", "it kept")
    contract.verified += ["advantages follow their rollouts", "unscored rewards are ignored"]

    if relative is None:
        relative = bool((base.sum(1).abs() < tolerance).all())
    if relative:
        shifted = optimizer.advantages(rewards_GK + 0.05, valid_GK)
        _expect_close(contract, "advantages", "no change by a shift of the rewards", shifted, base, tolerance)
        equal = optimizer.advantages(torch.full(shape, 0.5), valid_GK)
        contract.expect(bool((equal == 0).all()), "advantages", "0 where all rewards are equal", equal)
        contract.verified += ["shifting the rewards changes nothing", "equal rewards give 0"]
    halved = optimizer.advantages(rewards_GK / 2, valid_GK)
    if scale is None:
        scale = relative and bool(((halved[0] - base[0]).abs() < tolerance).all())
    if scale:
        _expect_close(contract, "advantages", "no change by a scale of the rewards", halved, base, tolerance)
        contract.verified.append("scaling the rewards changes nothing")


def _check_loss(contract: _Contract, optimizer: Optimizer) -> None:
    mask_BS = torch.ones(4, 6, dtype=torch.bool)
    mask_BS[0, 3:] = mask_BS[1, 5:] = False
    old_BS, advantages_B = _uniform((4, 6), seed=10) - 2.0, torch.ones(4)
    reference_BS = old_BS.clone() if optimizer.needs_reference else None

    def loss(junk: float) -> tuple[Tensor, Tensor, dict[str, float]]:
        log_prob_BS = old_BS.masked_fill(~mask_BS, junk).requires_grad_()
        found = optimizer.loss(log_prob_BS, old_BS, advantages_B, mask_BS, reference_BS)
        is_scalar = isinstance(found.value, Tensor) and found.value.ndim == 0 and found.value.requires_grad
        contract.expect(is_scalar, "loss", "a differentiable scalar", found.value)
        (gradient_BS,) = torch.autograd.grad(found.value, log_prob_BS)
        return found.value.detach(), gradient_BS, dict(found.metrics)

    with contract.untouched("loss", old=old_BS, advantages=advantages_B, mask=mask_BS):
        value, gradient_BS, metrics = loss(-1.0)
    contract.expect(bool(torch.isfinite(value)), "loss", "a finite value", value)
    rises = bool(gradient_BS.sum() < 0)
    contract.expect(
        rises, "loss", "positive advantages to raise log-probabilities", "the opposite, or nothing"
    )
    for junk in (0.0, 1e4, -1e4):
        other, other_gradient_BS, _ = loss(junk)
        _expect_close(contract, "loss", f"masked entries ({junk}) to be ignored", other, value, 1e-6)
        same = torch.allclose(other_gradient_BS, gradient_BS, atol=1e-6)
        clean = bool((other_gradient_BS[~mask_BS] == 0).all())
        contract.expect(
            same and clean, "loss", f"masked entries ({junk}) without gradient", other_gradient_BS
        )
    numbers = all(isinstance(number, int | float) for number in metrics.values())
    contract.expect(numbers, "loss", "metrics that are plain numbers", metrics)
    optimizer.should_stop(metrics)
    contract.verified += ["positive advantages raise log-probabilities", "masked entries are ignored"]


def _expect_close(
    contract: _Contract, method: str, expected: str, found: Tensor, wanted: Tensor, tolerance: float
) -> None:
    gap = float((found.detach().float() - wanted.detach().float()).abs().max())
    contract.expect(
        gap <= tolerance, method, f"{expected} (within {tolerance})", f"a difference of {gap:.3g}"
    )


def _close(first: float | None, second: float | None, tolerance: float) -> bool:
    if first is None or second is None:
        return first is second
    return abs(first - second) <= tolerance


@contextmanager
def _raises(contract: _Contract, method: str, expected: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        return
    except Exception as error:
        contract.expect(False, method, expected, repr(error))
    contract.expect(False, method, expected, "no error")


def _observe(tasks: Sequence[Task], proprio_dim: int | None) -> Observation:
    images_BVHWC = torch.stack([task.frames_THWC[-1:] for task in tasks])
    proprio_BP = None if proprio_dim is None else _uniform((len(tasks), proprio_dim), seed=2)
    return Observation(images_BVHWC, tuple(task.instruction for task in tasks), proprio_BP)


def _tensors(value: Any) -> list[Tensor]:
    """Every tensor in nested lists and dataclasses, in a fixed order."""
    if isinstance(value, Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = [getattr(value, item.name) for item in dataclasses.fields(value)]
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list | tuple) else []


def _size_of(component: Any, name: str, default: int) -> int:
    own = getattr(component, name, getattr(getattr(component, "config", None), name, default))
    return own if isinstance(own, int) else default


def _instance(component: Any) -> Any:
    # A policy is callable, too: only what is not a component yet is a function that builds one.
    is_factory = callable(component) and not isinstance(
        component, WorldModel | Policy | RewardModel | Optimizer
    )
    return component() if is_factory else component


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _uniform(shape: Sequence[int], seed: int) -> Tensor:
    """Uniform in [-1, 1)."""
    return torch.rand(tuple(shape), generator=_generator(seed)) * 2 - 1
