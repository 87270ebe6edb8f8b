"""What learns in a coarse dtype learns what it would have learned in float32."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from seeing import SeeingPolicy
from test_twins import iterate
from test_update import Imitating, TokenMean
from torch import Tensor, nn
from twins import together

from gymnast_core.errors import CheckpointError
from gymnast_core.processes import Processes
from gymnast_core.runs.snapshot import load_snapshot
from gymnast_core.training.masters import MasterWeights
from gymnast_core.training.update import Updater


def weights(count: int = 4000, dtype: torch.dtype = torch.bfloat16) -> nn.Parameter:
    return nn.Parameter(torch.ones(count, dtype=dtype))


def step(masters: MasterWeights, optimizer: torch.optim.Optimizer, live: nn.Parameter, gradient: float = 1.0) -> None:
    masters.follow()
    optimizer.zero_grad()
    live.grad = torch.full_like(live, gradient)
    masters.take_gradients()
    optimizer.step()
    masters.write()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_steps_add_up(dtype: torch.dtype) -> None:
    """A hundred steps of 1e-5, each far below the distance between numbers near 1 (2**-8, 2**-11)."""
    live = weights(dtype=dtype)
    optimizer = torch.optim.SGD([live], lr=1e-5)
    masters = MasterWeights([live])
    masters.adopt(optimizer)
    for _ in range(100):
        step(masters, optimizer, live)
    (master,) = masters.stepped
    assert master.dtype is torch.float32 and live.dtype is dtype
    torch.testing.assert_close(master.detach(), torch.full((4000,), 0.999), rtol=0, atol=3e-6)
    # In the coarse dtype no number is 0.999, but their mean is: it is what a network adds up.
    distance = torch.finfo(dtype).eps / 2
    assert float(live.detach().double().mean()) == pytest.approx(0.999, abs=5 * distance / 2 / 4000**0.5)
    assert float((live.detach().double() - 0.999).abs().max()) <= distance


def test_gradients_of_many_parts_add_up() -> None:
    """In bfloat16 a sum of ones stands still at 256."""
    live = weights(3)
    masters = MasterWeights([live])
    masters.adopt(torch.optim.SGD([live], lr=1.0))
    for _ in range(1000):
        live.sum().backward()
        masters.take_gradients()
        assert live.grad is None
    (master,) = masters.stepped
    assert master.grad is not None and torch.equal(master.grad, torch.full((3,), 1000.0))


def test_groups_of_an_optimizer_stay_what_they_are() -> None:
    matrix, vector, frozen = nn.Parameter(torch.ones(2, 2).bfloat16()), weights(2), weights(2, torch.float32)
    options: list[dict[str, Any]] = [
        {"params": [matrix], "weight_decay": 0.5, "lr_scale": 3.0},
        {"params": [frozen, vector]},
    ]
    optimizer = torch.optim.AdamW(options, lr=0.1, weight_decay=0.0)
    masters = MasterWeights([matrix, vector, frozen])
    masters.adopt(optimizer)
    first, second = optimizer.param_groups
    assert [p.shape for p in first["params"]] == [(2, 2)] and first["lr_scale"] == 3.0 and first["weight_decay"] == 0.5
    assert second["params"][0] is frozen and second["params"][1] is masters.stepped[1]
    assert masters.stepped[2] is frozen and not masters.coarse
    step(masters, optimizer, matrix)
    state = optimizer.state[masters.stepped[0]]
    assert state["exp_avg"].dtype is torch.float32 and state["exp_avg_sq"].dtype is torch.float32


def test_a_state_that_is_there_from_the_start_becomes_fine() -> None:
    live = weights(5)
    optimizer = torch.optim.Adagrad([live], lr=0.1, initial_accumulator_value=0.3)
    masters = MasterWeights([live])
    masters.adopt(optimizer)
    (state,) = optimizer.state.values()
    assert state["sum"].dtype is torch.float32
    step(masters, optimizer, live)


class Stubborn(torch.optim.SGD):
    """Shows copies of its groups, so that nothing can be put into them."""

    shows = False

    @property
    def param_groups(self) -> Any:
        if not self.shows:
            return self._groups
        return [{**group, "params": list(group["params"])} for group in self._groups]

    @param_groups.setter
    def param_groups(self, groups: Any) -> None:
        self._groups = groups


def test_an_optimizer_that_does_not_let_go_keeps_its_parameters() -> None:
    live = weights(2)
    optimizer = Stubborn([live], lr=0.5)
    optimizer.shows = True
    masters = MasterWeights([live])
    masters.adopt(optimizer)
    assert masters.coarse == [live] and masters.stepped == [live]
    optimizer.shows = False
    step(masters, optimizer, live)
    assert live.tolist() == [0.5, 0.5]


def test_what_others_write_into_the_weights_is_taken_over() -> None:
    live = weights(2)
    optimizer = torch.optim.SGD([live], lr=1e-5)
    masters = MasterWeights([live])
    masters.adopt(optimizer)
    step(masters, optimizer, live)
    (master,) = masters.stepped
    kept = float(master[1].detach())
    assert kept != 1.0
    with torch.no_grad():
        live[0] = 5.0
    masters.follow()
    assert master.tolist() == [5.0, kept]


def test_weights_of_any_layout() -> None:
    live = nn.Parameter(torch.ones(4, 3, 5, 5, dtype=torch.bfloat16).to(memory_format=torch.channels_last))
    scalar = nn.Parameter(torch.tensor(1.0, dtype=torch.bfloat16))
    optimizer = torch.optim.SGD([live, scalar], lr=0.5)
    masters = MasterWeights([live, scalar])
    masters.adopt(optimizer)
    scalar.grad = torch.ones_like(scalar)
    step(masters, optimizer, live)
    assert torch.equal(live.detach().float(), torch.full((4, 3, 5, 5), 0.5))


def test_a_copy_of_other_weights_is_refused() -> None:
    live = weights(3)
    masters = MasterWeights([live])
    masters.adopt(torch.optim.SGD([live], lr=1.0))
    for state in ({0: torch.zeros(4)}, {1: torch.zeros(3)}, {-1: torch.zeros(3)}):
        with pytest.raises(CheckpointError, match="float32 copy of shape"):
            masters.load_state_dict({"masters": state})


class Narrow(SeeingPolicy):
    """Keeps its weights in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.to(torch.bfloat16)


def learned(folder: Path, policy: SeeingPolicy, rate: float) -> list[Tensor]:
    """Weights after some iterations, or their copies where there are any."""
    config = loop_config(iterations=6)
    loop = train(folder, parts_of(policy, config, Learner(rate=rate)), config)
    assert loop.updater.updates > 6
    return [parameter.detach().float().clone() for parameter in loop.updater.masters.stepped]


def test_a_run_in_bfloat16_learns_what_one_in_float32_learns(tmp_path: Path) -> None:
    start = Narrow()
    wide = SeeingPolicy()
    wide.load_state_dict({name: x.float() for name, x in start.state_dict().items()})
    expected = learned(tmp_path / "wide", wide, 1e-3)
    found = learned(tmp_path / "narrow", start, 1e-3)
    begun = [parameter.detach().float() for parameter in Narrow().parameters()]
    for mine, theirs, before in zip(found, expected, begun, strict=True):
        moved = theirs - before
        assert moved.abs().max() > 1e-5
        # As far, in the same direction: of the gradient a few percent are bfloat16's rounding.
        torch.testing.assert_close(mine - before, moved, rtol=0.15, atol=2e-5)


def test_a_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    @dataclass
    class Adam(Learner):
        def torch_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.AdamW(parameters, lr=self.rate)

    whole, part = loop_config(iterations=4), loop_config(iterations=2)
    expected = train(tmp_path / "whole", parts_of(Narrow(), whole, Adam(rate=1e-4)), whole)
    train(tmp_path / "part", parts_of(Narrow(), part, Adam(rate=1e-4)), part)
    snapshot = load_snapshot(tmp_path / "part" / "snapshots")
    assert snapshot is not None
    found = train(tmp_path / "part", parts_of(Narrow(), whole, Adam(rate=1e-4)), whole, snapshot)
    for mine, theirs in zip(found.updater.masters.stepped, expected.updater.masters.stepped, strict=True):
        assert mine.dtype is torch.float32 and torch.equal(mine, theirs)
    for mine, theirs in zip(found.policy.parameters(), expected.policy.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    # What the weights were rounded from was saved: going on with rounded copies would end elsewhere.
    state = replace(snapshot, state={**snapshot.state, "updater": dict(snapshot.state["updater"])})
    del state.state["updater"]["weights"]
    other = train(tmp_path / "part", parts_of(Narrow(), whole, Adam(rate=1e-4)), whole, state)
    pairs = zip(other.updater.masters.stepped, expected.updater.masters.stepped, strict=True)
    assert not all(torch.equal(mine, theirs) for mine, theirs in pairs)


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_take_the_steps_of_one(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Imitating.__init__
    monkeypatch.setattr(Imitating, "__init__", lambda self: (original(self), self.to(torch.bfloat16))[0])

    def work(processes: Processes) -> Any:
        learner = TokenMean(minibatch_size=7, epochs=2, demonstrations_per_rollout=0.5, rate=0.01)
        return iterate(processes, learner, micro_batch_size=1)

    (alone,), several = together(1, work), together(count, work)
    assert alone.weights[0].dtype is torch.bfloat16
    for mine in several:
        for found, expected in zip(mine.weights, alone.weights, strict=True):
            assert torch.equal(found, expected)


def test_every_parameter_begins_a_step_without_a_gradient(tmp_path: Path) -> None:
    """Also one that the optimizer does not step: its gradient would grow, and clip everyone else's."""

    @dataclass
    class Half(Learner):
        def torch_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.SGD(parameters[:1], lr=0.0)

        def loss(self, minibatch: Any) -> Any:
            found = super().loss(minibatch)
            return replace(found, total=found.weight * policy.bias.sum())

    config = loop_config()
    policy, learner = SeeingPolicy(), Half(minibatch_size=4)
    loop = train(tmp_path, parts_of(policy, config, learner), config)
    assert loop.updater.updates > 1
    assert policy.bias.grad is not None
    assert policy.bias.grad.tolist() == [1.0, 1.0]


def test_a_loss_under_autocast_sees_what_no_bfloat16_number_shows() -> None:
    """Matrices show rounded values meanwhile, and are themselves again, with their gradient, afterwards."""
    matrix, vector = nn.Parameter(torch.full((50, 40), 1.001)), nn.Parameter(torch.full((7,), 1.001))
    masters = MasterWeights([matrix, vector])
    before = matrix.detach().clone()
    with masters.computing_in(torch.bfloat16, of=nn.ParameterList([matrix, vector])):
        shown = matrix.detach().clone()
        (matrix * 2.0).sum().backward()
        assert torch.equal(vector.detach(), torch.full((7,), 1.001))
    assert torch.equal(shown, shown.bfloat16().float()) and shown.unique().tolist() == [1.0, 1.0078125]
    assert float(shown.double().mean()) == pytest.approx(1.001, abs=5 * 2**-7 * (0.128 * 0.872 / 2000) ** 0.5)
    assert torch.equal(matrix.detach(), before)
    assert matrix.grad is not None and torch.equal(matrix.grad, torch.full((50, 40), 2.0))


def test_what_is_trained_beside_a_module_computes_with_its_own_values() -> None:
    """A critic is float32 throughout, also while the policy's loss is autocast."""
    policy, critic = nn.Parameter(torch.full((5, 4), 1.001)), nn.Parameter(torch.full((5, 4), 1.001))
    with MasterWeights([policy, critic]).computing_in(torch.bfloat16, of=nn.ParameterList([policy])):
        assert torch.equal(critic.detach(), torch.full((5, 4), 1.001)) and not torch.equal(policy, critic)


def test_a_copy_computes_what_the_module_computes_meanwhile() -> None:
    """Both are rounded alike, so that nothing lies between a policy and its frozen copy before it has moved."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(50, 40), nn.LayerNorm(40), nn.Linear(40, 3))
    module[2].requires_grad_(False)
    held, masters = copy.deepcopy(module), MasterWeights([p for p in module.parameters() if p.requires_grad])
    masters.round_alike(held, torch.bfloat16, of=module)
    x = torch.randn(5, 50)
    with masters.computing_in(torch.bfloat16, of=module), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(x), held(x))
    assert torch.equal(held[1].weight, module[1].weight) and torch.equal(held[2].weight, module[2].weight)
    assert not torch.equal(held[0].weight, module[0].weight)


def test_an_error_in_a_loss_leaves_the_weights_as_they_were() -> None:
    matrix = nn.Parameter(torch.full((5, 4), 1.001))
    masters, own = MasterWeights([matrix]), nn.ParameterList([matrix])
    with pytest.raises(ValueError, match="no loss"), masters.computing_in(torch.bfloat16, of=own):
        raise ValueError("no loss")
    assert torch.equal(matrix.detach(), torch.full((5, 4), 1.001))


def test_an_updater_without_an_optimizer_has_nothing_to_save() -> None:
    updater = Updater(
        Narrow(), {}, Learner(), (), seed=0, micro_batch_size=None, precision="32-true", processes=Processes()
    )
    assert updater.state_dict()["weights"] == {"masters": {}}
