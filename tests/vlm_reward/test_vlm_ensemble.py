"""Several judges, one verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from judging import make_rollout, make_rollouts

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.plugins.registry import registries
from gymnast_core.testing import check_reward_model
from gymnast_core.types import Reward, Rollout
from gymnast_vlm_reward.ensemble import Ensemble, MemberConfig
from gymnast_vlm_reward.loopback import Behaviour, LoopbackServer


def _ensemble(judges: list[dict[str, Any]], **args: Any) -> Any:
    return registries().reward_models.build("ensemble", {"judges": judges} | args)


def _chance(probability: float) -> dict[str, Any]:
    return {"name": "random", "args": {"probability": probability}}


def test_judges_of_all_vendors_vote(tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(4)
    with LoopbackServer() as right, LoopbackServer(Behaviour(dissent=100)) as wrong:
        small = {"frames": {"size": 16}, "cache": str(tmp_path / "c.sqlite"), "votes": 1}
        judges = [
            {"name": "gpt-4o", "args": small | {"base_url": right.openai_url}},
            {"name": "claude", "args": small | {"base_url": right.url}},
            {"name": "openai-compatible", "args": small | {"base_url": wrong.openai_url, "model": "contrarian"}},
        ]
        judge = _ensemble(judges)
        rewards = judge.score(rollouts)
        judge.close()
    assert [reward.value for reward in rewards] == truth
    assert rewards[0].partial == pytest.approx(2 / 3) and rewards[1].partial == pytest.approx(1 / 3)
    assert "2 of 3 judges agree" in rewards[0].rationale and "openai-compatible #3: 0" in rewards[0].rationale
    assert rewards[0].cost_usd is None  # one of them has no price


def test_a_judge_that_fails_may_not_decide() -> None:
    judge = Ensemble(Ensemble.Config(judges=[MemberConfig("random")] * 3))
    yes, no, lost = Reward(1.0), Reward(0.0), Reward(None, error="timeout", cost_usd=0.5)
    assert judge.combine([yes, yes, lost]).value == 1.0
    undecided = judge.combine([yes, no, lost])
    assert undecided.value is None and "timeout" in str(undecided.error) and undecided.cost_usd == 0.5
    assert judge.combine([yes, lost, lost]).value is None
    assert judge.combine([lost, lost, lost]).value is None


def test_to_be_undecided_is_not_to_be_unheard() -> None:
    judge = Ensemble(Ensemble.Config(judges=[MemberConfig("random")] * 2))
    yes, no = Reward(1.0, votes=(1, 1, 0)), Reward(0.0, votes=(0, 0, 0))
    lost, tied = Reward(None, error="HTTP 503"), Reward(None, error="a tie", votes=(1, 0), abstained=True)
    told = {
        name: (found.votes, found.abstained)
        for name, found in {
            "agree": judge.combine([yes, yes]), "tie": judge.combine([yes, no]), "half": judge.combine([yes, lost]),
            "both tied": judge.combine([tied, tied]), "one unheard": judge.combine([tied, lost]),
        }.items()
    }  # fmt: skip
    # An ensemble's votes are its members' values, whatever those were told.
    assert told == {
        "agree": ((1.0, 1.0), False), "tie": ((1.0, 0.0), True), "half": ((1.0,), False), "both tied": ((), True),
        "one unheard": ((), False),
    }  # fmt: skip


def test_unanimity_treats_disagreement_as_configured() -> None:
    values = {}
    for tie in ("unknown", "failure"):
        judge = Ensemble(Ensemble.Config(judges=[MemberConfig("random")] * 3, rule="unanimous", tie=tie))
        values[tie] = judge.combine([Reward(1.0), Reward(1.0), Reward(0.0)]).value
        assert judge.combine([Reward(1.0)] * 3).value == 1.0
        assert judge.combine([Reward(1.0), Reward(1.0), Reward(None, error="x")]).value is None
    assert values == {"unknown": None, "failure": 0.0}


def test_the_ensemble_keeps_the_contract() -> None:
    judge = _ensemble([_chance(1.0), _chance(1.0), _chance(0.0)])
    assert check_reward_model(judge)
    assert {reward.value for reward in judge.score(make_rollouts(3)[0])} == {1.0}
    judge.close()


@pytest.mark.parametrize(
    ("judges", "args", "words"),
    [
        ([], {}, "two or more"),
        ([_chance(1.0)], {}, "two or more"),
        ([_chance(1.0), _chance(2.0)], {}, "probability"),
        ([_chance(1.0), {"name": "random", "args": {"odds": 1}}], {}, r"judges\[1\].args.odds"),
        ([_chance(1.0), _chance(1.0)], {"rule": "majorty"}, "Did you mean 'majority'"),
        ([_chance(1.0), _chance(1.0)], {"tie": "win"}, "No tie 'win'"),
    ],
)
def test_an_ensemble_that_cannot_be_built_says_why(judges: list[Any], args: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _ensemble(judges, **args)


def test_a_preflight_reaches_every_judge(tmp_path: Path) -> None:
    with LoopbackServer() as server:
        args = {"base_url": server.openai_url, "cache": str(tmp_path / "c.sqlite"), "max_usd": 1.0}
        judge = _ensemble([_chance(1.0), {"name": "gpt-4o", "args": args}])
        with pytest.raises(ConfigError, match="budget is too small"):
            judge.preflight(10_000, 41)
        assert judge.score([make_rollout(0, True)])[0].value == 1.0
        judge.close()


def test_batches_overlap_and_a_cancelled_one_stops_its_judges(tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(4)
    with LoopbackServer(Behaviour(latency_s=0.2)) as server, LoopbackServer(Behaviour(latency_s=60)) as stuck:
        small = {"frames": {"size": 16}, "cache": str(tmp_path / "c.sqlite")}
        judges = [{"name": "gpt-4o", "args": small | {"base_url": server.openai_url}}] * 2 + [_chance(1.0)]
        judge = _ensemble(judges)
        futures = [judge.submit(rollouts[:2]), judge.submit(rollouts[2:])]
        assert [reward.value for future in futures for reward in future.result(timeout=30)] == truth
        assert server.most_at_once >= 3  # both batches were under way
        judge.close()
        slow = _ensemble([{"name": "gpt-4o", "args": small | {"base_url": stuck.openai_url}}, _chance(1.0)])
        future = slow.submit(rollouts)
        while len(stuck.log) < 4:
            time.sleep(0.01)
        assert future.cancel()
        slow.close()
        assert slow.judges[0].spending().doubtful_usd > 0


def test_a_judge_that_raises_is_heard() -> None:
    judge = _ensemble([_chance(1.0), _chance(1.0)])
    judge.judges[1].score = None
    with pytest.raises(TypeError):
        judge.score(make_rollouts(1)[0])
    judge.close()


class Counting(RewardModel):
    """Succeeds every so many rollouts: a judge with a state."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        every: int = 2
        kind: str = "success"

    def __init__(self, config: Config) -> None:
        self.config, self.kind = config, config.kind  # type: ignore[assignment]
        self.count, self.parts, self.closed = 0, None, 0

    def attach(self, parts: Parts) -> None:
        self.parts = parts

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Any) -> None:
        self.count = state["count"]

    def close(self) -> None:
        self.closed += 1

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        self.count += len(rollouts)
        return [Reward(float(self.count % self.config.every == 0)) for _ in rollouts]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registries().reward_models
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    registry.register("counting", Counting)


@pytest.mark.usefixtures("counting")
def test_members_are_introduced_kept_in_snapshots_and_closed() -> None:
    members = [{"name": "counting", "args": {"every": every}} for every in (2, 3)]
    judge, parts = _ensemble([*members, _chance(1.0)]), Parts()
    judge.attach(parts)
    assert [member.parts for member in judge.judges[:2]] == [parts, parts]
    judge.score(make_rollouts(3)[0])
    resumed = _ensemble([*members, _chance(1.0)])
    resumed.load_state_dict(judge.state_dict())
    assert [member.count for member in resumed.judges[:2]] == [3, 3]
    with pytest.raises(ValueError, match="zip"):
        _ensemble(members).load_state_dict(judge.state_dict())
    judge.close()
    assert [member.closed for member in judge.judges[:2]] == [1, 1]


@pytest.mark.usefixtures("counting")
def test_scores_are_no_votes() -> None:
    with pytest.raises(ConfigError, match="'counting' does not say how successful a rollout is"):
        _ensemble([_chance(1.0), {"name": "counting", "args": {"kind": "score"}}])
