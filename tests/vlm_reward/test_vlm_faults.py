"""Judges against servers on loopback that fail in every way we know of."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import anthropic
import openai
import pytest
from judging import MAKERS, PATIENT, compatible_judge, make_rollout, make_rollouts, openai_judge

from gymnast_core.money import total_usd
from gymnast_vlm_reward.engine import RetryConfig
from gymnast_vlm_reward.loopback import FAULTS, SPOILT, TOKENS_IN, Behaviour, LoopbackServer
from gymnast_vlm_reward.replies import retry_after

HEALED = ("rate_limit", "error_500", "reset", "cut_body", "cut_json", "wrong_type", "prose", "fewer", "more", "none")
"""Faults that go away when a request is repeated, or do no harm."""


@pytest.mark.parametrize("name", MAKERS)
def test_a_judge_is_right_on_a_healthy_server(name: str, tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(6)
    with LoopbackServer() as server:
        judge = MAKERS[name](server, tmp_path)
        rewards = judge.score(rollouts)
        assert [reward.value for reward in rewards] == truth == [reward.partial for reward in rewards]
        assert "votes 1 1 1 1 1" in rewards[0].rationale and "binary-v1" in rewards[0].rationale
        assert "The last frame decides." in rewards[0].rationale
        assert len(server.log) == (6 if name == "gpt-4o" else 30)
        assert judge.score([]) == []
        judge.close()
        assert [reward.value for reward in judge.score(rollouts)] == truth  # usable again, from the cache
        assert len(server.log) == (6 if name == "gpt-4o" else 30)
        judge.close()


@pytest.mark.parametrize("fault", ["no fault", "prose", "fewer", "more", "none", *SPOILT])
def test_the_servers_answers_pass_the_client_libraries_own_checks(fault: str) -> None:
    """The loopback server speaks the protocols, faulty answers included, as the vendors' libraries define them."""
    faults = () if fault == "no fault" else (fault,)
    image = "data:image/png;base64," + _png()
    with LoopbackServer(Behaviour(fault_rate=float(bool(faults)), faults=faults or FAULTS)) as server:
        strict: dict[str, Any] = {"api_key": "k", "max_retries": 0, "_strict_response_validation": True}
        ours = openai.OpenAI(base_url=server.openai_url, **strict)
        content = [{"type": "image_url", "image_url": {"url": image}}]
        completion = ours.chat.completions.create(model="m", n=3, messages=[{"role": "user", "content": content}])
        assert completion.usage is not None and completion.usage.prompt_tokens == TOKENS_IN
        theirs = anthropic.Anthropic(base_url=server.url, **strict)
        source = {"type": "base64", "media_type": "image/png", "data": _png()}
        tool = {"name": "t", "input_schema": {"type": "object"}}
        message = theirs.messages.create(
            model="m",
            max_tokens=5,
            messages=[{"role": "user", "content": [{"type": "image", "source": source}]}],
            tools=[tool],
        )
        assert message.usage.input_tokens == TOKENS_IN


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("fault", HEALED)
def test_a_fault_that_passes_costs_nothing_but_time(fault: str, name: str, tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(3)
    with LoopbackServer(Behaviour(fault_rate=0.5, faults=(fault,), seed=3)) as server:
        judge = MAKERS[name](server, tmp_path, redo=20)
        rewards = judge.score(rollouts)
        judge.close()
        assert [reward.value for reward in rewards] == truth, [reward.error for reward in rewards]
        assert any(served.fault == fault for served in server.log)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_answer_is_never_a_value(fault: str, name: str, tmp_path: Path) -> None:
    rollouts, _ = make_rollouts(2)
    with LoopbackServer(Behaviour(fault_rate=1.0, faults=(fault,))) as server:
        judge = MAKERS[name](server, tmp_path, votes=1, redo=2)
        rewards = judge.score(rollouts)
        assert [reward.value for reward in rewards] == [None, None]
        assert all(reward.error for reward in rewards)
        assert len(server.log) == 2 * 3  # the vote and its two replacements
        assert judge.score(rollouts)[0].error == rewards[0].error
        assert len(server.log) == 2 * 3  # what was received is known, however useless
        judge.close()


def test_a_spoilt_answer_is_replaced_by_another_one(tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(4)
    with LoopbackServer(Behaviour(fault_rate=0.2, faults=SPOILT, seed=1)) as server:
        judge = compatible_judge(server, tmp_path, redo=4)
        rewards = judge.score(rollouts)
        judge.close()
        spoilt = sum(served.fault is not None for served in server.log)
        assert [reward.value for reward in rewards] == truth
        assert spoilt > 0 and len(server.log) == 4 * 5 + spoilt


def test_a_slow_answer_is_given_up_and_asked_for_again(tmp_path: Path) -> None:
    with LoopbackServer(Behaviour(fault_rate=1.0, faults=("slow",), slow_s=60)) as server:
        judge = openai_judge(server, tmp_path, retry=replace(PATIENT, timeout_s=2.0, attempts=2))
        reward = judge.score([make_rollout(0, True)])[0]
        judge.close()
        assert reward.value is None and "No answer within 2 s. (attempt 2 of 2)" in str(reward.error)
        assert len(server.log) == 2


@pytest.mark.parametrize(("status", "code"), [(400, "bad"), (401, "bad"), (404, "bad"), (429, "insufficient_quota")])
def test_what_repeating_cannot_heal_is_not_repeated(status: int, code: str, tmp_path: Path) -> None:
    rollouts, _ = make_rollouts(40)
    with LoopbackServer(Behaviour(status=status, error_code=code)) as server:
        judge = openai_judge(server, tmp_path, concurrency=2)
        rewards = judge.score(rollouts)
        judge.close()
        assert all(reward.value is None and f"HTTP {status}" in str(reward.error) for reward in rewards)
        # A wrong key or an empty account is the same for all: the rest is not even sent.
        # A refusal without a reason is tried once without `n`.
        assert len(server.log) == 41 if status == 400 else len(server.log) <= 3


def test_an_anthropic_account_without_credit_stops_everything(tmp_path: Path) -> None:
    with LoopbackServer(Behaviour(status=400, error_code="Your credit balance is too low")) as server:
        judge = MAKERS["claude"](server, tmp_path, concurrency=1)
        rewards = judge.score(make_rollouts(5)[0])
        judge.close()
        assert all("add credit" in str(reward.error) for reward in rewards) and len(server.log) == 1


def test_the_servers_wish_to_wait_is_heard(tmp_path: Path) -> None:
    with LoopbackServer(Behaviour(fault_rate=1.0, faults=("rate_limit",), retry_after="1")) as server:
        judge = openai_judge(server, tmp_path, retry=replace(PATIENT, attempts=3))
        assert judge.score([make_rollout(0, True)])[0].value is None
        judge.close()
        first, second, third = (served.at for served in server.log)
        assert second - first >= 1.0 and third - second >= 1.0


def test_a_wish_beyond_all_patience_is_an_error_at_once(tmp_path: Path) -> None:
    with LoopbackServer(Behaviour(fault_rate=1.0, faults=("rate_limit",), retry_after="86400")) as server:
        judge = openai_judge(server, tmp_path)
        assert "86400 s" in str(judge.score([make_rollout(0, True)])[0].error)
        judge.close()
        assert len(server.log) == 1


def test_retry_after_in_all_its_forms() -> None:
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    in_a_minute = retry_after({"retry-after": formatdate(time() + 60, usegmt=True)})
    assert in_a_minute is not None and 55 < in_a_minute <= 60
    assert retry_after({"retry-after": "soon"}) is None and retry_after({}) is None
    assert retry_after({"retry-after": "-3"}) == 0.0


def test_waiting_times_double_and_are_the_same_for_the_same_seed() -> None:
    retry = RetryConfig(base_s=1.0, max_s=8.0)
    delays = [retry.delay(attempt, None, "seed/question") for attempt in range(6)]
    for delay, full in zip(delays, (1, 2, 4, 8, 8, 8), strict=True):
        assert 0.5 * full <= delay <= full
    assert delays == [retry.delay(attempt, None, "seed/question") for attempt in range(6)]
    assert delays != [retry.delay(attempt, None, "other/question") for attempt in range(6)]
    assert retry.delay(0, 30.0, "x") == 30.0


def test_a_server_that_is_not_there_is_an_error_on_the_rollout(tmp_path: Path) -> None:
    with LoopbackServer() as server:
        pass
    judge = openai_judge(server, tmp_path, retry=replace(PATIENT, attempts=2))
    reward = judge.score([make_rollout(0, True)])[0]
    assert reward.value is None and "connection failed" in str(reward.error)
    assert judge.spending().usd == 0.0  # nothing left this machine
    judge.close()


def test_a_tie_is_unknown_unless_configured(tmp_path: Path) -> None:
    values = {}
    for tie in ("unknown", "failure", "success"):
        with LoopbackServer(Behaviour(dissent=2)) as server:
            judge = openai_judge(server, tmp_path / tie, votes=4, tie=tie)
            reward = judge.score([make_rollout(0, True)])[0]
            judge.close()
            values[tie] = reward.value
            assert tie != "unknown" or "tie: votes 0 0 1 1" in str(reward.error)
            assert reward.votes == (0.0, 0.0, 1.0, 1.0) and reward.abstained == (tie == "unknown")
    assert values == {"unknown": None, "failure": 0.0, "success": 1.0}


def test_the_majority_wins_and_partial_is_the_mean_of_the_votes(tmp_path: Path) -> None:
    with LoopbackServer(Behaviour(dissent=2)) as server:
        judge = openai_judge(server, tmp_path)
        rewards = judge.score([make_rollout(0, True), make_rollout(1, False)])
        judge.close()
    assert [(reward.value, reward.partial) for reward in rewards] == [(1.0, 0.6), (0.0, 0.4)]


def test_a_text_answer_is_asked_for_and_read(tmp_path: Path) -> None:
    with LoopbackServer(Behaviour(reply="It moved half way.\n**Final Score:** 0.5")) as server:
        judge = compatible_judge(server, tmp_path, structured=False, prompt="partial-v1")
        reward = judge.score([make_rollout(0, True)])[0]
        judge.close()
    assert reward.value == 0.5 and reward.rationale.startswith("It moved half way.")


@pytest.mark.parametrize("name", MAKERS)
def test_faults_of_all_kinds_at_once_change_no_value_and_pay_nothing_twice(name: str, tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(40)
    behaviour = Behaviour(fault_rate=0.2, faults=tuple(fault for fault in FAULTS if fault != "slow"), seed=5)
    with LoopbackServer(behaviour) as server:
        judge = MAKERS[name](server, tmp_path, redo=5, prices={"loopback": {"input": 1, "output": 2}})
        rewards = judge.score(rollouts)
        assert [reward.value for reward in rewards] == truth, [reward.error for reward in rewards]
        # The server's log, our ledger and the rewards' costs say the same.
        billed = server.billed_usd(judge.engine.price)
        assert judge.spending().requests == sum(served.answered > 0 for served in server.log)
        assert judge.spending().settled_usd == pytest.approx(billed)
        # Beside that, what the vendor may have billed for requests that brought nothing.
        assert total_usd(reward.cost_usd for reward in rewards) == pytest.approx(judge.spending().usd)
        assert server.excess(votes=5) == 0
        judge.close()


def test_thousands_of_waiting_rollouts_keep_to_the_concurrency(tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(30)
    with LoopbackServer(Behaviour(latency_s=0.02)) as server:
        judge = openai_judge(server, tmp_path, concurrency=4)
        assert [reward.value for reward in judge.score(rollouts)] == truth
        judge.close()
        assert 2 <= server.most_at_once <= 4


def test_scoring_inside_a_running_event_loop(tmp_path: Path) -> None:
    async def notebook() -> float | None:
        return judge.score([make_rollout(0, True)])[0].value

    with LoopbackServer() as server:
        judge = openai_judge(server, tmp_path)
        assert asyncio.run(notebook()) == 1.0
        judge.close()


def _png() -> str:
    import base64

    from judging import SMALL

    return base64.b64encode(SMALL.encode(make_rollout(0, True).view(None, [6]))[0]).decode()


def test_the_requests_carry_what_was_configured(tmp_path: Path) -> None:
    with LoopbackServer() as server:
        for name, args in (
            ("gpt-4o", {"temperature": 0.7, "extra": {"top_p": 0.9}}),
            ("claude", {"temperature": 0.7, "extra": {"top_p": 0.9}, "votes": 1}),
            ("openai-compatible", {"structured": False, "temperature": None, "votes": 1}),
        ):
            judge = MAKERS[name](server, tmp_path, **args)
            assert judge.score([make_rollout(0, True)])[0].value == 1.0
            judge.close()
        ours, claude, plain = (served.parameters for served in server.log)
    schema = ours["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["properties"]["score"]["enum"] == ["0", "1"]
    assert (ours["n"], ours["max_completion_tokens"], ours["temperature"], ours["top_p"]) == (5, 300, 0.7, 0.9)
    assert claude["tools"][0]["input_schema"] == schema["schema"]
    assert claude["tool_choice"] == {"type": "tool", "name": claude["tools"][0]["name"]}
    assert (claude["max_tokens"], claude["temperature"], claude["top_p"]) == (300, 0.7, 0.9)
    assert plain == {"model": "loopback", "max_tokens": 300}


def test_a_rollout_that_shows_or_asks_nothing_is_an_error_and_is_not_sent(tmp_path: Path) -> None:
    sound = make_rollout(0, True)
    hopeless = [
        replace(sound, frames_TVHWC=sound.frames_TVHWC[:0]),
        replace(sound, frames_TVHWC=sound.frames_TVHWC.float()),
        replace(sound, frames_TVHWC=sound.frames_TVHWC[..., :1]),
        replace(sound, task=replace(sound.task, instruction=" ")),
    ]
    with LoopbackServer() as server:
        judge = openai_judge(server, tmp_path)
        rewards = judge.score([*hopeless, sound])
        judge.close()
        assert [reward.value for reward in rewards] == [None] * 4 + [1.0] and len(server.log) == 1
        assert all("not uint8" in str(reward.error) for reward in rewards[:3]) and "instruction" in str(
            rewards[3].error
        )
