"""A verdict counts only from an answer that says it is complete; all else that a server sends costs its question."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
from judging import KEY, MAKERS, claude_judge, compatible_judge, make_rollout, make_rollouts, openai_judge
from raw_server import Asked, RawServer, response

from gymnast_core.types import Reward
from gymnast_vlm_reward.engine import RetryConfig
from gymnast_vlm_reward.parsing import Unreadable, read_answer

BINARY = (0.0, 1.0)
_ONCE = RetryConfig(attempts=1, timeout_s=30.0)
VERDICT = '{"reasoning": "done", "score": 1}'


def first(handler: Any, folder: Path, make: Any = compatible_judge, **args: Any) -> Reward:
    """The reward of a successful rollout from a server that answers so."""
    with RawServer(handler) as server:
        judge = make(server, folder, **{"retry": _ONCE, **args})
        try:
            return judge.score([make_rollout(0, True)])[0]
        finally:
            judge.close()


@pytest.mark.parametrize("reason", ["stop", "STOP", "eos_token", "stop_sequence", "eos", "end_turn", "COMPLETE"])
def test_an_answer_that_says_it_is_complete_counts(reason: str, tmp_path: Path) -> None:
    assert first(lambda asked: asked.completion(VERDICT, reason), tmp_path).value == 1.0


@pytest.mark.parametrize(
    "reason",
    ["length", "model_length", "content_filter", "MAX_TOKENS", "SAFETY", "abort", "error", "load", "unload",
     "tool_calls", "function_call", "insufficient_system_resource", "timeout", "cancelled", "", "unknown", "stopped?",
     None, 1, ["stop"], {"type": "stop"}, True],
)  # fmt: skip
def test_any_other_reason_to_end_is_no_verdict(reason: Any, tmp_path: Path) -> None:
    reward = first(lambda asked: asked.completion(VERDICT, reason), tmp_path)
    assert reward.value is None and "no vote could be had" in str(reward.error)


def test_a_missing_reason_is_no_verdict(tmp_path: Path) -> None:
    choices = [{"index": 0, "message": {"content": VERDICT}}]
    assert "finish_reason" in str(first(lambda asked: asked.completion(choices=choices), tmp_path).error)


@pytest.mark.parametrize(
    ("content", "reason", "value"),
    [
        ([{"type": "tool_use", "name": "report_judgement", "input": {"score": "1"}}], "tool_use", 1.0),
        ([{"type": "text", "text": VERDICT}], "end_turn", 1.0),
        ([{"type": "text", "text": VERDICT}], "stop_sequence", 1.0),
        ([{"type": "thinking", "thinking": '{"score": 0}'}, {"type": "text", "text": VERDICT}], "end_turn", 1.0),
        ([{"type": "text", "text": VERDICT}], "tool_use", None),  # the call is missing
        ([{"type": "tool_use", "name": "another", "input": {"score": "1"}}], "tool_use", None),
        ([{"type": "tool_use", "name": "report_judgement", "input": {"score": "1"}}], "max_tokens", None),
        ([{"type": "text", "text": VERDICT}], "pause_turn", None),
        ([{"type": "text", "text": VERDICT}], "refusal", None),
        ([{"type": "text", "text": VERDICT}], "model_context_window_exceeded", None),
        ([{"type": "text", "text": VERDICT}], None, None),
        ([{"type": "thinking", "thinking": VERDICT}], "end_turn", None),
        (["x", None, {"type": "text", "text": 5}], "end_turn", None),
    ],
)
def test_a_message_of_anthropics_counts_if_complete(
    content: Any, reason: Any, value: float | None, tmp_path: Path
) -> None:
    found = first(lambda asked: asked.message(content, reason), tmp_path, claude_judge)
    assert found.value == value and found.abstained == (reason == "refusal")  # the others were not heard in full


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('<think>{"score": 0} at first</think>\n{"score": 1}', 1.0),
        ('It looks like {"score": 0}…</think>{"score": 1}', 1.0),  # the template opens the thinking itself
        ('<THINK>a</THINK><think>b</think>{"score": 1}', 1.0),
        ('[THINK]{"score": 0}[/THINK]{"score": 1}', 1.0),
        ('<|channel|>analysis<|message|>score 0?<|end|><|start|>assistant<|channel|>final<|message|>{"score": 1}', 1.0),
        ('{"reasoning": "one must <think> about it", "score": 1}', 1.0),  # JSON throughout: a word in a string
        ('{"reasoning": "one\nline\tand another", "score": 1}', 1.0),
        ('<think>{"score": 1}', None),
        ('{"score": 1}<think> or is it', None),
        ('<think>a</think>{"score": 1}<think>b', None),
        ('<think>{"score": 1}</think>', None),
        ('{"draft": {"score": 0}, "score": 1', None),  # the outer object is broken
        ('{score: 0} {"score": 1}', None),
        ('I answer as {"reasoning": …, "score": X}: {"score": 1}', None),
        ('{ {"score": 1}', None),
        ('the set {a, b}, so {"score": 1}', 1.0),
        ('{"score": 1} {"score": "1"}', 1.0),
        ('[{"score": 0}, {"score": 1}]', None),
        ('{"score": ' + "1" * 5000 + "}", None),
        ('{"score": 1, "score": 0}', None),
    ],
)
def test_thinking_and_broken_json_are_told_from_the_verdict(text: str, score: float | None) -> None:
    if score is None:
        with pytest.raises(Unreadable):
            read_answer(text, BINARY)
    else:
        assert read_answer(text, BINARY).score == score


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 20_000, "{" * 100_000, '{"' * 50_000, "[{" * 50_000, '{"a":"' * 16_000, "<think>" * 14_000,
        "final score: " * 7_000, "answer: " * 12_000, "final score" + " " * 99_000,
        "Final Score: 1" + " " * 90_000 + "x",
        "{}" * 50_000, '{"score": 1}' * 8_000, "final " * 16_000, "Final Score: " + "*" * 90_000, "\n" * 100_000,
    ],
)  # fmt: skip
def test_no_text_is_read_slowly(text: str) -> None:
    def seconds(text: str) -> float:
        began = time.process_time()
        try:
            read_answer(text, BINARY)
        except Unreadable as error:
            assert len(str(error)) < 500
        return time.process_time() - began

    half, whole = (min(seconds(text[: len(text) // part]) for _ in range(3)) for part in (2, 1))
    assert whole < 0.5 and whole < 6 * half + 0.02


PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": '{"score": 0}'}]},
    {"type": "text", "text": VERDICT},
]


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (PARTS, 1.0),
        ([{"type": "text", "text": '{"score": '}, {"type": "text", "text": "1}"}], 1.0),
        ([{"type": "output_text", "text": VERDICT}], 1.0),
        ([{"type": "text", "text": "Final Score: 1"}, {"type": "text", "text": "0"}], None),
        ([{"type": "refusal", "refusal": "I may not"}, {"type": "text", "text": VERDICT}], None),
        ([], None),
        ({"text": VERDICT}, None),
        (7, None),
    ],
)
def test_content_may_come_in_parts(content: Any, value: float | None, tmp_path: Path) -> None:
    found = first(lambda asked: asked.completion(content), tmp_path)
    assert found.value == value and found.abstained == ("refusal" in str(content))


WORDS = [
    (response({"error": {"code": 402, "message": "Insufficient credits"}}), "Insufficient credits"),
    (response([{"error": {"code": 400, "message": "enum[0] (TYPE_STRING)"}}], "400 X"), "TYPE_STRING"),
    (response({"detail": "nothing of that kind"}, "422 X"), "nothing of that kind"),
    (response({"detail": [{"loc": ["body", "x"], "msg": "Input should be y"}]}, "422 X"), "Input should be y"),
    (response({"message": "model is loading"}, "503 X"), "model is loading"),
    (response({"error": "a text"}), "a text"),
    (response({"object": "error", "message": "too long", "code": 40303}), "too long"),
    (
        response({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "529 X"),
        "Overloaded",
    ),
    (response("upstream connect error", "503 X", "text/plain"), "upstream connect error"),
    (response("<html><title>Log in</title><p>Sign in to the guest network", kind="text/html"), "guest network"),
    (
        response("<script>var a = '<p>'</script><h1>502 Bad Gateway</h1>", "502 X", "text/html"),
        "HTTP 502: Bad Gateway.",
    ),
    (response("", "308 X", location="/v1/chat/completions"), "redirects to /v1/chat/completions"),
    (response("", "302 X", location="https://a.b/login?token=t0ps3cret"), "redirects to https://a.b/login."),
    (response("", "302 X", location="http://[::1"), "redirects"),
    (response("", "204 X"), "HTTP 204"),
    (response("null"), "null"),
    (response("[" * 100_000), "[[["),
    (response('{"choices": [], "choices": 1}'), "cannot be read"),
    (response("x" * 9_000_000), "MiB"),
    (response(gzip.compress(b" " * 50_000_000), Content_Encoding="gzip"), "MiB"),
    (response(b"\x1f\x8bno", Content_Encoding="gzip"), "cannot be read"),
    (response("{}", Content_Encoding="br"), "'br'"),
    (response({"choices": None}), "no chat completion"),
    (response({"choices": [{"error": {"code": 502, "message": "provider gone"}}]}), "provider gone"),
    (response({"choices": [None, "x", 5]}), "finish_reason"),
    (response({"error": {"message": "bell \x07 esc \x1b[2J \ud83d end"}}, "400 X"), "end"),
    (b"hello\r\n\r\n", "connection failed"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", "connection failed"),
    (None, "connection failed"),
]


@pytest.mark.parametrize(("sent", "words"), WORDS, ids=range(len(WORDS)))
def test_whatever_comes_is_an_error_in_the_servers_own_words(sent: Any, words: str, tmp_path: Path) -> None:
    reward = first(lambda asked: sent, tmp_path)
    assert reward.value is None and words in str(reward.error)
    assert len(str(reward.error)) < 700 and str(reward.error).isprintable() and "t0ps3cret" not in str(reward.error)


@pytest.mark.parametrize("sent", [words[0] for words in WORDS if words[0] is not None])
def test_it_costs_its_own_question_only(sent: bytes, tmp_path: Path) -> None:
    """Every fourth request meets it; the others are judged, and rightly."""
    rollouts, truth = make_rollouts(12)
    with RawServer() as server:
        server.handler = lambda asked: sent if len(server.log) % 4 == 0 and len(server.log) > 1 else asked.completion()
        judge = openai_judge(server, tmp_path, concurrency=1, retry=_ONCE, redo=0)
        rewards = judge.score(rollouts)
        judge.close()
    assert all(reward.value in (None, value) for reward, value in zip(rewards, truth, strict=True))
    scored = sum(reward.value is not None for reward in rewards)
    assert scored == 3 if b"Insufficient" in sent else scored >= 9  # no money is the same for all
    assert all("n" in asked.body for asked in server.log)  # nothing is concluded from an odd refusal


def test_a_five_megabyte_answer_is_no_verdict_and_is_not_kept(tmp_path: Path) -> None:
    reward = first(lambda asked: asked.completion(VERDICT + " " * 5_000_000 + "x"), tmp_path, votes=1, redo=0)
    assert "letters" in str(reward.error)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 500_000


def test_half_a_letter_is_replaced_and_the_verdict_counts(tmp_path: Path) -> None:
    reward = first(lambda asked: asked.completion('{"reasoning": "done \ud83d", "score": 1}'), tmp_path)
    assert reward.value == 1.0 and reward.rationale.startswith("done �")
    whole = first(lambda asked: asked.completion('{"reasoning": "\ud83d\ude00", "score": 1}'), tmp_path, namespace="b")
    assert whole.rationale.startswith("😀")


@pytest.mark.parametrize("tokens", [10**20, 10**400, "5001 digits", 10**6, 1e300, float("inf"), -1, "many", [1], True])
def test_counts_beyond_the_upper_bound_are_not_believed(tokens: Any, tmp_path: Path) -> None:
    def handler(asked: Asked) -> bytes:
        usage = {"prompt_tokens": "TOKENS", "completion_tokens": 1}
        digits = "1" + "0" * 5000 if tokens == "5001 digits" else json.dumps(tokens)
        return response(json.dumps(asked.completion(usage=usage)).replace('"TOKENS"', digits))

    with RawServer(handler) as server:
        judge = openai_judge(server, tmp_path)
        reward = judge.score([make_rollout(0, True)])[0]
        question = judge.question(make_rollout(0, True))
        reserved = judge.engine.usd(judge.engine.input_tokens(question), 5 * 300)
        assert reward.value == 1.0
        assert judge.spending().settled_usd == pytest.approx(reserved) == pytest.approx(reward.cost_usd)
        judge.close()


def test_bytes_beyond_an_answer_do_not_become_the_next_one(tmp_path: Path) -> None:
    """The server sends a wrong second answer behind each right one, on a connection that it would keep."""
    rollouts, truth = make_rollouts(12)

    def handler(asked: Asked) -> bytes:
        wrong = asked.completion(json.dumps({"score": 1 - asked.score}))
        return response(asked.completion(), connection="keep-alive") + response(wrong)

    with RawServer(handler) as server:
        judge = openai_judge(server, tmp_path, concurrency=2)
        assert [reward.value for reward in judge.score(rollouts)] == truth
        judge.close()
        assert server.connections == len(server.log) == 12


def test_an_answer_that_is_delivered_twice_in_one_body_counts_once(tmp_path: Path) -> None:
    def handler(asked: Asked) -> Any:
        choices = asked.completion()["choices"]
        wrong = {**choices[0], "message": {"content": json.dumps({"score": 1 - asked.score})}}
        return asked.completion(choices=[wrong] * 3 + choices[1:])

    with RawServer(handler) as server:
        judge = openai_judge(server, tmp_path)
        rewards = judge.score([make_rollout(0, True)])
        judge.close()
    assert rewards[0].value == 1.0 and "votes 0 1 1 1 1" in rewards[0].rationale


@pytest.mark.parametrize("name", MAKERS)
def test_an_unexpected_error_of_ours_costs_its_own_question(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gymnast_vlm_reward import wire

    async def broken(self: Any, path: str, body: Any) -> Any:
        raise ZeroDivisionError(KEY)

    monkeypatch.setattr(wire.Wire, "post", broken)
    with RawServer() as server:
        judge = MAKERS[name](server, tmp_path, retry=_ONCE)
        reward = judge.score([make_rollout(0, True)])[0]
        judge.close()
    assert "ZeroDivisionError" in str(reward.error) and KEY not in str(reward.error)
