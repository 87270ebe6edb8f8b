"""Budgets that hold, estimates, rate limits, and keys that nobody sees."""

from __future__ import annotations

import io
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest
from judging import KEY, MAKERS, PATIENT, claude_judge, compatible_judge, make_rollout, make_rollouts, openai_judge

from gymnast_core.errors import ConfigError
from gymnast_core.network.secrecy import Mask
from gymnast_core.plugins.registry import registries
from gymnast_vlm_reward.ledger import Ledger
from gymnast_vlm_reward.limits import RateLimit
from gymnast_vlm_reward.loopback import TOKENS_IN, TOKENS_OUT, Behaviour, LoopbackServer
from gymnast_vlm_reward.prices import Price, Usage, find_price
from gymnast_vlm_reward.store import Store

REQUEST_USD = (2.5 * TOKENS_IN + 10 * 5 * TOKENS_OUT) / 1e6
"""What the loopback server bills for five votes of gpt-4o."""


@pytest.mark.parametrize(("name", "variable"), [("gpt-4o", "OPENAI_API_KEY"), ("claude", "ANTHROPIC_API_KEY")])
def test_a_missing_key_is_named_before_anything_is_built(
    name: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(ConfigError, match=f"{variable} is not set"):
        registries().reward_models.build(name)
    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        registries().reward_models.build(name, {"api_key_env": "MY_KEY"})


def test_what_cannot_be_kept_is_refused() -> None:
    def build(**args: Any) -> None:
        registries().reward_models.build(
            "openai-compatible", {"base_url": "http://127.0.0.1:9/v1", "model": "m"} | args
        )

    for args, words in (
        ({"model": ""}, "model is not set"),
        ({"base_url": None}, "base_url"),
        ({"max_usd": 1.0}, "No price is known"),
        ({"max_usd": 0.0}, "max_usd"),
        ({"prices": {"m": {"input": 1}}, "max_usd": 1.0}, "must give input and output"),
        ({"prices": {"m": {"input": 1, "output": -1}}}, "output"),
        ({"prices": {"m": {"input": 1, "output": 1, "imput": 1}}}, "Did you mean 'input'"),
        ({"votes": 0}, "votes"),
        ({"tie": "suces"}, "Did you mean 'success'"),
        ({"prompt": "binary"}, "binary-v1"),
        ({"detail": "medium"}, "detail"),
        ({"concurrency": 0}, "concurrency"),
        ({"answers_per_request": 0}, "answers_per_request"),
        ({"retry": {"timeout_s": 0}}, "timeout_s"),
        ({"temperature": -1.0}, "temperature"),
    ):
        with pytest.raises(ConfigError, match=words):
            build(**args)


def test_known_prices(tmp_path: Path) -> None:
    """OpenAI and Anthropic price lists: gpt-4o 2.50/10 USD, an image at low detail 85 tokens; Sonnet 4.6 3/15."""
    price = find_price("gpt-4o-2024-08-06", {})
    assert price is not None and price == find_price("gpt-4o", {})
    assert price.usd(Usage(1_000_000, 0)) == 2.5 and price.usd(Usage(0, 1_000_000)) == 10
    assert price.usd(Usage(1_000_000, 0, cached_tokens=1_000_000)) == 1.25
    assert price.tokens_of_image(512, 512, "low") == 85
    assert price.tokens_of_image(1024, 1024, "high") == 765  # OpenAI's own example: 4 tiles of 170, and 85
    claude = find_price("claude-sonnet-4-6", {})
    assert claude is not None and claude.usd(Usage(1_000_000, 1_000_000)) == 18
    assert find_price("gpt-4o", {"gpt-4o": {"input": 1, "output": 2}}) == Price(1, 2)
    assert find_price("no-such-model", {}) is None


def test_an_estimate_is_an_upper_bound_that_is_not_absurd(tmp_path: Path) -> None:
    with LoopbackServer() as server:
        judge = openai_judge(server, tmp_path)
        one, many = judge.estimate(1, 41, 256), judge.estimate(100, 41, 256)
    # 15 frames of 85 tokens, the prompt's words, five answers.
    assert 15 * 85 < one.input_tokens < 15 * 85 + 1500
    assert one.usd is not None and many.usd == pytest.approx(100 * one.usd)
    assert one.usd == pytest.approx((2.5 * one.input_tokens + 10 * 5 * 120) / 1e6)
    assert one.most_usd == pytest.approx((2.5 * one.input_tokens + 10 * 5 * 300) / 1e6)
    assert judge.estimate(1, 81, 256).input_tokens > one.input_tokens


def test_a_budget_too_small_says_what_it_would_need(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LoopbackServer() as server:
        with pytest.raises(ConfigError, match=r"It would need reward_model.args.max_usd=0\.02"):
            openai_judge(server, tmp_path, max_usd=0.001)
        judge = openai_judge(server, tmp_path, max_usd=1.0)
        with caplog.at_level(logging.INFO), pytest.raises(ConfigError, match="1000 rollouts in up to 1000 requests"):
            judge.preflight(1000, 41)
        assert "about" in caplog.text and "USD" in caplog.text
        judge.preflight(50, 41)
        judge.close()


def test_the_budget_is_never_exceeded_and_the_rest_is_unscored(tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(40)
    with LoopbackServer(Behaviour(latency_s=0.01)) as server:
        budget = 10.5 * REQUEST_USD
        judge = openai_judge(server, tmp_path, max_usd=budget, concurrency=16, max_tokens=60, answer_tokens=10)
        rewards = judge.score(rollouts)
        spent = judge.spending()
        judge.close()
        scored = [reward for reward in rewards if reward.value is not None]
        # Reserved at the upper bound, settled at the true price: the last request may find no room for its reserve.
        assert 7 <= len(scored) <= 10 and len(server.log) == len(scored)
        assert spent.usd <= budget and spent.usd == pytest.approx(len(scored) * REQUEST_USD)
        assert all("budget is used up" in str(reward.error) for reward in rewards if reward.value is None)
        assert all(reward.value in (None, value) for reward, value in zip(rewards, truth, strict=True))
        richer = openai_judge(server, tmp_path, max_usd=1.0, max_tokens=60)
        assert [reward.value for reward in richer.score(rollouts)] == truth
        richer.close()
        assert len(server.log) == 40


def test_a_budget_is_shared_by_all_who_use_the_account(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "s.sqlite"))
    first, second, other = Ledger(store, "a", 1.0), Ledger(store, "a", 1.0), Ledger(store, "b", 1.0)
    charge = first.reserve("m", "q", 0.7)
    assert charge is not None and second.reserve("m", "q", 0.7) is None and other.reserve("m", "q", 0.7) is not None
    first.settle(charge, 0.2, Usage(1, 1), "q", "m", [])
    assert second.reserve("m", "q", 0.8) is not None and second.reserve("m", "q", 0.01) is None
    assert first.spending().usd == pytest.approx(1.0)


def test_what_may_have_been_billed_stays_charged(tmp_path: Path) -> None:
    ledger = Ledger(Store(str(tmp_path / "s.sqlite")), "a", 1.0)
    for doubtful in (False, True):
        charge = ledger.reserve("m", "q", 0.4)
        assert charge is not None
        ledger.drop(charge, doubtful=doubtful)
    assert ledger.spending().doubtful_usd == pytest.approx(0.4) and ledger.spending().settled_usd == 0
    assert ledger.reserve("m", "q", 0.7) is None and ledger.reserve("m", "q", 0.6) is not None


def test_an_unknown_price_is_said_and_not_called_zero(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LoopbackServer() as server, caplog.at_level(logging.INFO):
        judge = compatible_judge(server, tmp_path)
        assert "what it costs will not be known" in caplog.text and "unknown cost" in caplog.text
        reward = judge.score([make_rollout(0, True)])[0]
        assert "cost unknown" in reward.rationale and reward.cost_usd is None
        assert judge.spending().unpriced == 5
        remembered = judge.score([make_rollout(0, True)])[0]
        assert "cost unknown" not in remembered.rationale and remembered.cost_usd == 0.0
        judge.close()


def test_a_server_that_does_not_count_is_charged_at_the_upper_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gymnast_vlm_reward import loopback

    monkeypatch.setattr(loopback, "_completion", _without_usage(loopback._completion))
    with LoopbackServer() as server:
        judge = openai_judge(server, tmp_path)
        cost = judge.score([make_rollout(0, True)])[0].cost_usd
        assert cost > 10 * 5 * 300 / 1e6 and judge.spending().settled_usd == pytest.approx(cost)
        judge.close()


def _without_usage(completion: Any) -> Any:
    return lambda *args: completion(*args) | {"usage": None}


def test_a_rate_limit_lets_a_burst_through_and_then_its_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gymnast_vlm_reward import limits

    now = 1000.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    stores = [Store(str(tmp_path / "s.sqlite")) for _ in range(2)]
    first, second = (RateLimit(store, "m", per_minute=60) for store in stores)
    assert [first.take(1), second.take(1), first.take(1)] == [0.0, 0.0, 0.0]  # 3 seconds' worth
    assert [second.take(1), first.take(1)] == [1.0, 2.0]  # in order, whoever asks
    now += 2.0
    assert first.take(1) == 1.0
    first.give_back(1)
    assert second.take(1) == 1.0
    now += 3600
    assert first.take(10) == 7.0  # more than the bucket holds is served, later


def test_requests_keep_to_the_limit(tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(4)
    with LoopbackServer() as server:
        judge = openai_judge(server, tmp_path, requests_per_minute=60)
        assert [reward.value for reward in judge.score(rollouts)] == truth
        judge.close()
        times = sorted(served.at for served in server.log)
        assert times[-1] - times[0] >= 0.9  # three at once, then one a second


def test_tokens_are_limited_by_what_was_really_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gymnast_vlm_reward import limits

    monkeypatch.setattr(limits.time, "monotonic", lambda: 1000.0)  # nothing is refilled
    rollouts, truth = make_rollouts(3)
    used = TOKENS_IN + 5 * TOKENS_OUT
    with LoopbackServer() as server:
        judge = openai_judge(server, tmp_path, tokens_per_minute=20.0 * 12 * used, concurrency=1)
        assert [reward.value for reward in judge.score(rollouts)] == truth
        judge.close()
    limit = judge.engine.token_limit
    assert limit is not None and limit.take(9 * used) == 0.0 and limit.take(1) > 0.0


@pytest.mark.parametrize("name", MAKERS)
def test_the_key_is_nowhere_but_in_the_request(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in files, logs (at any level), exceptions, rewards or representations, even if the server echoes it."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    behaviours = {
        "accepted": Behaviour(api_key=KEY),
        "refused": Behaviour(api_key="another"),
        "told": Behaviour(reply=f'{{"reasoning": "Your key is {KEY}.", "score": 1}}'),
        "unreadable": Behaviour(reply=f"Your key is {KEY}."),
    }
    seen, values = io.StringIO(), {}
    with caplog.at_level(logging.DEBUG, logger=""):
        for label, behaviour in behaviours.items():
            with LoopbackServer(behaviour) as server:
                judge = MAKERS[name](server, tmp_path, api_key_env="JUDGE_KEY", namespace=label)
                rewards = judge.score([make_rollout(0, True)])
                values[label] = rewards[0].value
                seen.write(f"{rewards} {judge!r} {vars(judge)} {judge.engine!r} {judge.config!r} {judge.asked_of}")
                sent = server.log[0].headers
                assert KEY in (sent.get("x-api-key", "") + sent.get("authorization", ""))
                judge.close()
        with pytest.raises(ConfigError) as caught:
            prices = {"loopback": {"input": 1, "output": 1}}
            MAKERS[name](server, tmp_path, api_key_env="JUDGE_KEY", max_usd=1e-9, prices=prices)
        seen.write("".join(traceback.format_exception(caught.value)))
    assert values == {"accepted": 1.0, "refused": None, "told": 1.0, "unreadable": None}
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in files and b"[key]" in files
    assert KEY not in caplog.text and "HTTP Request" in caplog.text
    assert KEY not in seen.getvalue() and "[key]" in seen.getvalue()


def test_the_key_for_one_server_is_not_sent_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LoopbackServer() as server:
        judge = compatible_judge(server, tmp_path)
        assert judge.score([make_rollout(0, True)])[0].value == 1.0
        judge.close()
        assert all(KEY not in str(served.headers) for served in server.log)


def test_claude_pays_for_cached_tokens_at_their_price() -> None:
    from gymnast_vlm_reward.anthropic_judges import read_message

    counted = {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 900}
    reply = read_message({"content": [], "usage": counted, "stop_reason": "end_turn"}, Mask())
    assert reply.usage == Usage(1000, 10, 900)


def test_a_judge_takes_its_settings_from_the_registry(tmp_path: Path) -> None:
    with LoopbackServer() as server:
        args = {"base_url": server.url, "cache": str(tmp_path / "c.sqlite"), "frames": {"stride": None, "count": 2}}
        judge = registries().reward_models.build("claude", args | {"votes": 3, "retry": {"attempts": 2}})
        reward = judge.score([make_rollout(0, False)])[0]
        judge.close()
        assert reward.value == 0.0 and len(server.log) == 3
        assert claude_judge(server, tmp_path).config.retry == PATIENT
