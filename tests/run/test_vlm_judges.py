"""A whole training judged by a model behind a server on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from canary import CANARY, ESCAPINGS, faults, leaks
from raw_server import RawServer
from small import CommandLine, Models

from gymnast_vlm_reward.loopback import LoopbackServer

KEY = "sk-nobody-may-ever-read-this"


def overrides(models: Models, server: LoopbackServer) -> list[str]:
    small = [item for item in models.overrides() if not item.startswith("reward_model")]
    judge = f"base_url: '{server.openai_url}', model: loopback, votes: 3, cache: answers.sqlite, api_key_env: SOME_KEY"
    return [*small, f"reward_model={{name: openai-compatible, args: {{{judge}}}}}", "evaluation.tasks=null"]


def test_the_run_folder_says_what_was_asked_and_never_the_key(
    gymnast: CommandLine, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    with LoopbackServer() as server:
        done = gymnast("train", "tabletop", *overrides(models, server))
        assert done.code == 0, done.err
        asked = len(server.log)
        assert asked >= 4  # four rollouts; those that look alike are asked once
        again = gymnast("train", "tabletop", *overrides(models, server), "output=again")
        assert again.code == 0, again.err
        assert len(server.log) == asked, "the same run was paid for twice"
    judges = json.loads(Path("run/judges.json").read_text())
    judge = judges["reward_model"]
    assert judge["name"] == "openai-compatible"
    assert judge["config"]["votes"] == 3
    assert judge["config"]["tie"] == "unknown", "defaults belong to what was asked"
    assert judge["prompt"]["version"] == "binary-v1"
    assert "{instruction}" in judge["prompt"]["question"]
    written = [path for path in Path().rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    assert KEY not in done.out + done.err


def damaged(models: Models) -> list[str]:
    """Overrides with a policy whose weights cannot be loaded."""
    policy = Path("damaged").resolve()
    shutil.copytree(models.policy, policy)
    (policy / "model.safetensors").write_bytes(b"no weights")
    return models.overrides(policy=policy)


def test_without_its_key_a_judge_stops_the_run_before_any_model_is_loaded(
    gymnast: CommandLine, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    small = [item for item in damaged(models) if not item.startswith("reward_model")]
    message = gymnast.error("train", "tabletop", *small, "reward_model.name=gpt-4o")
    assert "OPENAI_API_KEY" in message
    assert "model.safetensors" not in message


def test_a_budget_that_cannot_do_says_what_would(
    gymnast: CommandLine, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    small = [item for item in damaged(models) if not item.startswith("reward_model")]
    judge = "reward_model={name: gpt-4o, args: {max_usd: 0.001, cache: answers.sqlite}}"
    message = gymnast.error("train", "tabletop", *small, judge)
    assert "max_usd" in message
    assert "It would need" in message
    assert "model.safetensors" not in message


JUDGES = {
    "gpt-4o": "base_url: '{url}/v1'",
    "openai-compatible": "base_url: '{url}/v1', model: m",
    "claude": "base_url: '{url}'",
}


@pytest.mark.parametrize("name", JUDGES)
def test_a_run_whose_judge_repeats_the_key_in_every_way_leaves_it_nowhere(
    name: str, gymnast: CommandLine, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every failure with every escaping of the key: all files of the run, its pages and what it said are looked at."""
    monkeypatch.setenv("SOME_KEY", CANARY)
    answers = [answer for escape in ESCAPINGS.values() for answer in faults(escape(CANARY)).values()]
    asked = 0

    def answer(request: Any) -> Any:
        nonlocal asked
        asked += 1
        return answers[(7 * asked) % len(answers)](request)

    small = [item for item in models.overrides() if not item.startswith("reward_model")]
    with RawServer(answer) as server:
        options = JUDGES[name].format(url=f"http://127.0.0.1:{server.port}")
        judge = f"{options}, votes: 1, redo: 2, cache: answers.sqlite, api_key_env: SOME_KEY, probe: false"
        retry = "retry: {attempts: 2, base_s: 0.01, max_s: 0.01}"
        done = gymnast(
            "--verbose", "train", "tabletop", *small, f"reward_model={{name: {name}, args: {{{judge}, {retry}}}}}",
            "evaluation.tasks=null", "loop.max_error_rate=1", "loop.iterations=3", "loop.tasks_per_iteration=12",
            "optimizer.args.group_size=4", "loop.max_draws=1", "tasks.args.count=48",
        )  # fmt: skip
    assert asked > 100
    assert not leaks(done.out + done.err)
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert any(path.name == "report.html" for path in files)
    assert [path for path in files if "unscored" in path.parts]
    assert not [path for path in files if leaks(path.read_bytes())]
