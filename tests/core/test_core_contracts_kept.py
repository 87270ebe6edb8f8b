"""What plugins return is looked at in every run, not only by `gymnast check`: one sentence that names the plugin."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import asdict
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import gymnast_core.interfaces
from gymnast_core.errors import ContractError
from gymnast_core.plugins.events import Steering
from gymnast_core.rollouts.steps import checked_step
from gymnast_core.testing.contract import Contract
from gymnast_core.training.judge import judge, submit
from gymnast_core.types import Reward, Step

ACTIONS = torch.zeros(2, 3, 4)
FRAMES = torch.zeros(2, 3, 1, 8, 8, 3, dtype=torch.uint8)


class ToyWorld:
    """Only its name counts."""


@pytest.mark.parametrize("number", [np.float32(0.5), torch.tensor(0.5), np.float64(0.5), Decimal("0.5"), 0.5])
def test_a_number_of_any_library_is_stored_as_pythons(number: Any) -> None:
    found = Reward(
        number,
        partial=number,
        success=number,
        cost_usd=number,
        finish_step=np.int64(3),
        numbers={"height_1": number},
        votes=[number, 1],
    )
    assert json.loads(json.dumps(asdict(found))) == {
        "value": 0.5, "step_values_S": None, "end_potential": 0.0, "partial": 0.5, "success": 0.5,
        "rationale": "", "error": None, "cost_usd": 0.5, "finish_step": 3,
        "numbers": {"height_1": 0.5}, "votes": [0.5, 1.0], "abstained": False,
    }  # fmt: skip
    assert type(found.value) is float and type(found.finish_step) is int


def test_a_comparison_is_a_success_or_none() -> None:
    assert [type(Reward(np.bool_(x)).value) for x in (True, False)] == [float, float]
    assert (Reward(True).value, Reward(False).value) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"value": "1"}, "Reward.value is '1'; it must be a number"),
        ({"value": float("nan")}, "finite"),
        ({"value": 1.0, "cost_usd": "0.1"}, "Reward.cost_usd is '0.1'; it must be a number"),
        ({"value": 1.0, "cost_usd": -1.0}, "must be a cost in USD"),
        ({"value": 1.0, "end_potential": float("inf")}, "infinite or NaN rewards"),
        ({"value": 1.0, "success": 1.5}, r"Reward.success is 1.5; it must lie in \[0, 1\]"),
        ({"value": 1.0, "finish_step": 2.5}, "Reward.finish_step is 2.5; it must be a whole number"),
        ({"value": 1.0, "votes": ["yes"]}, "A vote of Reward.votes is 'yes'; it must be a number"),
        ({"value": 1.0, "abstained": True}, "abstained has an error, which says why"),
        ({"value": 1.0, "rationale": None}, "Reward.rationale is None; it must be text"),
        ({"value": 1.0, "numbers": {"my number!": 1.0}}, "letters, digits and underscores"),
        ({"value": None, "error": ""}, "Reward.error is ''; it must be text that says why"),
        ({"value": None, "error": TimeoutError("no answer")}, "it must be text that says why"),
    ],
)
def test_a_reward_that_cannot_be_is_refused_where_it_is_made(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reward(**given)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (FRAMES, "returned a Tensor, not a Step"),
        (Step(FRAMES.float()), r"gave frames_BLVHWC torch.float32 \(2, 3, 1, 8, 8, 3\); expected torch.uint8"),
        (Step(FRAMES[:, :, 0]), r"torch.uint8 \(2, 3, 8, 8, 3\); expected torch.uint8 \(2, 3, 1, 8, 8, 3\)"),
        (Step(FRAMES[:, -1:]), "an entry for each action"),
        (Step(FRAMES[:, :, :, :4]), "expected"),
        (Step(FRAMES, outcome_BL=torch.zeros(2)), r"outcome_BL torch.float32 \(2,\)"),
        (Step(FRAMES, outcome_BL=torch.zeros(2, 3, dtype=torch.bool)), "outcome_BL torch.bool"),
        (Step(FRAMES, proprio_BLP=torch.zeros(2, 5)), r"proprio_BLP torch.float32 \(2, 5\)"),
        (Step(FRAMES, outcome_BL=[0.0]), "gave outcome_BL as list, not as a tensor"),
        (Step(FRAMES, errors=("lost",)), "gave 1 errors for 2 episodes"),
    ],
)
def test_a_step_of_another_shape_names_the_world(step: Any, message: str) -> None:
    with pytest.raises(ContractError, match=rf"ToyWorld.step {message}" if "returned" in message else message) as told:
        checked_step(ToyWorld(), step, ACTIONS, 1, 8, 8)
    assert "ToyWorld.step" in str(told.value) and "gymnast check" in str(told.value)


def test_a_step_as_it_should_be_passes() -> None:
    full = Step(FRAMES, torch.zeros(2, 3, 5), torch.full((2, 3), torch.nan), (None, "it crashed"))
    assert checked_step(ToyWorld(), full, ACTIONS, 1, 8, 8) is full


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda rollouts: [1.0], "score returned"),
        (lambda rollouts: (Reward(1.0) for _ in rollouts), "score returned"),
        (lambda rollouts: [], "0 rewards for 1 rollouts"),
    ],
)
def test_what_a_judge_returns_names_the_judge(score: Any, message: str) -> None:
    class ToyJudge:
        kind = "success"

        def submit(self, rollouts: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(score(rollouts))
            return future

    rollout: Any = SimpleNamespace(error=None, horizon=1)
    with pytest.raises(ContractError, match=rf"ToyJudge.*{message}"):
        judge(ToyJudge(), [rollout])  # type: ignore[arg-type]


def test_a_submission_that_is_no_future_and_a_kind_that_is_none() -> None:
    rollout: Any = SimpleNamespace(error=None, horizon=1)
    hasty: Any = SimpleNamespace(submit=lambda rollouts: [Reward(1.0)], kind="success")
    with pytest.raises(ContractError, match=r"submit returned \[Reward.* a Future"):
        submit(hasty, [rollout])
    scored: Future[Any] = Future()
    scored.set_result([Reward(1.0)])
    misspelt: Any = SimpleNamespace(submit=lambda rollouts: scored, kind="succes")
    with pytest.raises(ContractError, match="kind is 'succes'"):
        judge(misspelt, [rollout])


def test_a_reason_to_stop_is_text() -> None:
    with pytest.raises(ValueError, match="must say why the run is to end"):
        Steering(stop=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"leave_out": ["x"]}, r"leave_out is \['x'\]; it must be families"),
        ({"leave_out": {"instruction": "open the drawer"}}, "must be a list or a set of texts"),
        ({"leave_out": {"instruction": [3]}}, "must be a list or a set of texts"),
        ({"leave_out": {"instruction": {"open": 1}}}, "must be a list or a set of texts"),
        ({"metrics": [1.0]}, "must be numbers by name"),
        ({"metrics": {"gate": "high"}}, r"metrics\['gate'\] is 'high'; it must be a number"),
        ({"metrics": {"step": 7.0}}, "Steering.metrics has a metric named 'step', which is a number of the run's own"),
        ({"metrics": {"a\nb": 7.0}}, "names begin with a letter"),
        ({"metrics": {3: 7.0}}, "names begin with a letter"),
    ],
)
def test_what_a_hook_wants_of_a_run_has_its_types(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Steering(**given)


def test_what_a_hook_wants_is_stored_as_pythons() -> None:
    steering = Steering({"instruction": {"go"}, "family": ("a",)}, metrics={"gate_share": np.float32(0.5)})
    assert type(steering.metrics["gate_share"]) is float


def test_a_check_sees_a_tensor_that_is_taken_out_or_added() -> None:
    contract = Contract(ToyWorld(), gymnast_core.interfaces, label="Toy")
    for change in (list.pop, lambda tensors: tensors.append(torch.ones(1))):
        tensors = [torch.ones(2), torch.zeros(2)]
        with (
            pytest.raises(ContractError, match="shown to be left as it was"),
            contract.untouched("step", shown=tensors),
        ):
            change(tensors)
