"""A judge is asked once before anything is imagined, and what a server does not support is found out once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from judging import MAKERS, compatible_judge, make_rollout, make_rollouts, openai_judge
from raw_server import RawServer, refusing, response

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.money import total_usd
from gymnast_core.testing.stand_ins import Nothing, StillWorld
from gymnast_vlm_reward import service
from gymnast_vlm_reward.loopback import TOKENS_IN, TOKENS_OUT, Behaviour, LoopbackServer


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_PROBED", set())


def parts() -> Parts:
    """Of a run that will imagine."""
    return Parts(world_model=StillWorld(Nothing()), tasks=[make_rollout(7, True).task])


@pytest.mark.parametrize("name", MAKERS)
def test_a_judge_is_asked_one_small_question_before_the_run(name: str, tmp_path: Path) -> None:
    with LoopbackServer() as server:
        judge = MAKERS[name](server, tmp_path)
        judge.attach(parts())
        assert len(server.log) == 1
        answers = 2 if name == "gpt-4o" else 1  # of which one request brings several
        assert server.log[0].asked == answers
        if judge.engine.price is not None:
            price = judge.engine.price
            assert judge.spending().usd == pytest.approx(
                (TOKENS_IN * price.input + answers * TOKENS_OUT * price.output) / 1e6
            )
        judge.attach(parts())  # a canary's judge is attached again and again
        assert len(server.log) == 1
        # What it cost is part of what the first rollouts cost.
        first, second = judge.score([make_rollout(0, True)]), judge.score([make_rollout(1, True)])
        total = total_usd(reward.cost_usd for reward in (*first, *second))
        assert total == (None if judge.engine.price is None else pytest.approx(judge.spending().usd))
        judge.close()


def test_a_judge_that_answered_within_the_hour_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LoopbackServer() as server:
        for hours, expected in ((0.0, 1), (0.5, 1), (2.0, 2), (-3.0, 3)):
            monkeypatch.setattr(service, "_PROBED", set())
            judge = openai_judge(server, tmp_path)
            now = judge.engine.store.age
            monkeypatch.setattr(judge.engine.store, "age", _later(now, hours))
            judge.attach(parts())
            judge.close()
            assert len(server.log) == expected, hours


def _later(age: Any, hours: float) -> Any:
    return lambda key: None if age(key) is None else age(key) + 3600 * hours


def test_without_a_world_or_by_option_nothing_is_asked(tmp_path: Path) -> None:
    with LoopbackServer() as server:
        judge = openai_judge(server, tmp_path)
        judge.attach(Parts(tasks=parts().tasks))
        judge.attach(Parts(world_model=StillWorld(Nothing())))
        judge.close()
        judge = openai_judge(server, tmp_path, probe=False)
        judge.attach(parts())
        judge.close()
        assert server.log == []


@pytest.mark.parametrize("name", MAKERS)
def test_a_judge_that_cannot_judge_stops_the_run_in_its_own_words(name: str, tmp_path: Path) -> None:
    with LoopbackServer(Behaviour(status=401, error_code="no_such_key")) as server:
        judge = MAKERS[name](server, tmp_path)
        with pytest.raises(ConfigError, match=r"HTTP 401: no_such_key as configured.*probe=false"):
            judge.attach(parts())
        judge.close()
        assert len(server.log) == 1


def test_a_first_answer_without_a_verdict_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LoopbackServer(Behaviour(reply="Who knows?")) as server:
        judge = openai_judge(server, tmp_path)
        with caplog.at_level(logging.WARNING):
            judge.attach(parts())
        judge.close()
    assert "no score in 'Who knows?'" in caplog.text


def test_n_is_left_out_once_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rollouts, truth = make_rollouts(6)
    for refusal in (refusing("n"), _only_one):
        caplog.clear()
        with RawServer(refusal) as server:
            judge = openai_judge(server, tmp_path, namespace=str(refusal))
            with caplog.at_level(logging.WARNING):
                judge.attach(parts())
                assert [reward.value for reward in judge.score(rollouts)] == truth
            judge.close()
            assert sum("n" in asked.body for asked in server.log) == 1
            assert len(server.log) == 2 + 6 * 5
        assert caplog.text.count("does not support n") == 1


def _only_one(asked: Any) -> Any:
    # As llama.cpp says it: no name of a field.
    error = {"error": {"code": 400, "message": "Only one completion choice is allowed"}}
    return response(error, "400 Bad Request") if "n" in asked.body else asked.completion()


@pytest.mark.parametrize(
    ("make", "refused"), [(openai_judge, "max_completion_tokens"), (compatible_judge, "max_tokens")]
)
def test_the_other_name_of_the_limit_is_tried(make: Any, refused: str, tmp_path: Path) -> None:
    other = {"max_tokens", "max_completion_tokens"} - {refused}
    with RawServer(refusing(refused)) as server:
        judge = make(server, tmp_path)
        assert judge.score([make_rollout(0, True)])[0].value == 1.0
        judge.close()
        assert server.log[-1].body[other.pop()] == 300 and refused not in server.log[-1].body


def _no_limit(asked: Any) -> Any:
    for field in ("max_tokens", "max_completion_tokens"):
        if field in asked.body:
            return response({"detail": [{"loc": ["body", field], "msg": "extra fields not permitted"}]}, "422 X")
    return asked.completion()


def test_without_any_limit_only_who_keeps_no_budget_is_judged(tmp_path: Path) -> None:
    with RawServer(_no_limit) as server:
        judge = openai_judge(server, tmp_path)
        assert judge.score([make_rollout(0, True)])[0].value == 1.0
        judge.close()
        judge = openai_judge(server, tmp_path, max_usd=1.0, namespace="b")
        reward = judge.score([make_rollout(0, True)])[0]
        judge.close()
        assert reward.value is None and "max_usd=null" in str(reward.error)


@pytest.mark.parametrize("name", MAKERS)
def test_a_temperature_is_left_out_only_if_that_means_the_same(name: str, tmp_path: Path) -> None:
    with RawServer(refusing("temperature")) as server:
        server.handler = _anthropic_too(server.handler)
        judge = MAKERS[name](server, tmp_path, temperature=1.0)
        assert judge.score([make_rollout(0, True)])[0].value == 1.0
        judge.close()
        judge = MAKERS[name](server, tmp_path, temperature=0.5, concurrency=2)
        before = len(server.log)
        rewards = judge.score(make_rollouts(9)[0])
        judge.close()
        assert all("reward_model.args.temperature=null" in str(reward.error) for reward in rewards)
        assert len(server.log) - before <= 9 * 5 // 2  # all would be refused: the rest is not sent


def _anthropic_too(handler: Any) -> Any:
    def handle(asked: Any) -> Any:
        sent = handler(asked)
        if asked.path.endswith("/messages") and isinstance(sent, dict):
            return asked.message([{"type": "text", "text": f'{{"score": {asked.score}}}'}])
        return sent

    return handle


def test_a_server_without_schemas_is_told_the_option(tmp_path: Path) -> None:
    with RawServer(refusing("response_format")) as server:
        judge = compatible_judge(server, tmp_path)
        assert "reward_model.args.structured=false" in str(judge.score([make_rollout(0, True)])[0].error)
        judge.close()


def test_the_schema_has_no_enum_of_numbers(tmp_path: Path) -> None:
    with RawServer(lambda asked: asked.completion('{"reasoning": "", "score": "0.5"}')) as server:
        judge = compatible_judge(server, tmp_path, prompt="partial-v1")
        assert judge.score([make_rollout(0, True)])[0].value == 0.5
        judge.close()
        schema = server.log[0].body["response_format"]["json_schema"]["schema"]
        assert schema["properties"]["score"]["enum"] == ["0", "0.5", "1"]
