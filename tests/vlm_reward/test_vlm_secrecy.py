"""Keys and passwords reach whom they are for, and no error, log, page, cache or run folder, in whatever escaping."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from canary import CANARY, ESCAPINGS, faults, leaks
from judging import MAKERS, compatible_judge, make_rollout, openai_judge
from raw_server import RawServer

from gymnast_core.errors import ConfigError, GymnastError
from gymnast_core.plugins.registry import registries
from gymnast_vlm_reward.engine import RetryConfig

ONCE = RetryConfig(attempts=1, timeout_s=30.0)


@pytest.mark.parametrize("name", MAKERS)
def test_no_key_is_left_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every failure with every escaping: rewards, errors, logs of every level, representations, and all files."""
    monkeypatch.setenv("JUDGE_KEY", CANARY)
    seen, values = [], []
    with caplog.at_level(logging.DEBUG, logger=""), RawServer() as server:
        judge = MAKERS[name](server, tmp_path, api_key_env="JUDGE_KEY", votes=1, redo=0, retry=ONCE)
        for number, escape in enumerate(ESCAPINGS.values()):
            for place, handler in enumerate(faults(escape(CANARY)).values()):
                server.handler = handler
                reward = judge.score([make_rollout(100 * number + place, True)])[0]
                values.append(reward.value)
                seen.append(repr(reward))
        provider = judge.engine.provider
        seen += map(repr, [judge, vars(judge), judge.engine, provider, vars(provider), judge.asked_of])
        judge.close()
    assert 1.0 in values and None in values
    (tmp_path / "seen.txt").write_text("\n".join([*seen, caplog.text]))
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not leaks(path.read_bytes()), path
    assert "[key]" in caplog.text + "".join(seen)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (f"{CANARY}\n# mine", "several lines"),
        (f"{CANARY}\r\nX-A: b", "several lines"),
        (f'"{CANARY}"', "quotes"),
        (f"'{CANARY}'", "quotes"),
        (f"`{CANARY}`", "quotes"),
        (f"{CANARY} # mine", "spaces"),
        (f"Bearer {CANARY}", "spaces"),
        (f"{CANARY}\x07{CANARY}", "control characters"),
        (f"{CANARY}\u200b", "beyond ASCII"),
        (f"{CANARY}é", "beyond ASCII"),
    ],
)
def test_a_key_that_can_be_none_is_refused_unseen(key: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", key)
    for name, args in (
        ("gpt-4o", {}),
        ("claude", {}),
        ("openai-compatible", {"model": "m", "base_url": "http://a/v1"}),
    ):
        if key.strip() == CANARY:
            continue  # white space around it is nobody's fault
        with pytest.raises(ConfigError, match=f"JUDGE_KEY.*{words}") as caught:
            registries().reward_models.build(name, {"api_key_env": "JUDGE_KEY", **args})
        assert not leaks("".join(traceback.format_exception(caught.value)))


def test_a_key_in_place_of_its_variable_is_refused_unseen() -> None:
    for key in (CANARY, "AIzaSyCanary7HqZxwv5K3tQ8wv5K3tQ8"):
        with pytest.raises(ConfigError, match="api_key_env") as caught:
            registries().reward_models.build("gpt-4o", {"api_key_env": key})
        assert key not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        f"http://user:{CANARY}@127.0.0.1/v1", f"https://{CANARY}@127.0.0.1/v1", f"http://:{CANARY}@127.0.0.1/v1",
        f"http://127.0.0.1/v1?api-key={CANARY}", f"http://127.0.0.1/v1?{CANARY}", f"http://127.0.0.1/v1?api-version=1&key={CANARY}",
        f"http://127.0.0.1/v1#{CANARY}", f"//user:{CANARY}@127.0.0.1/v1", f"user:{CANARY}@127.0.0.1/v1",
        f"http://127.0.0.1:{CANARY}/v1", f"http://127.0.0.1/v1 {CANARY}", f"http://[::1/{CANARY}",
    ],
)  # fmt: skip
def test_secrets_in_an_address_are_refused_unseen(address: str) -> None:
    with pytest.raises(ConfigError, match="base_url") as caught:
        registries().reward_models.build("openai-compatible", {"model": "m", "base_url": address})
    assert not leaks("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("localhost:8000/v1", "http://"), ("127.0.0.1:8000/v1", "http://"), ("ftp://a/v1", "http://"), ("/v1", "http://"),
        ("http://", "http://"), ("http://a+b/v1", "no host"), ("http://a/v1/chat/completions", "is added"), 
        ("http://a:99999/v1", "http://"),
        ("http://a/v1\n", "line breaks"), ("", "is not set"),
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_one_clear_error(address: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        registries().reward_models.build("openai-compatible", {"model": "m", "base_url": address})


def test_extra_takes_no_keys_and_nothing_that_has_an_option() -> None:
    for extra in ({"api_key": CANARY}, {"options": {"Authorization": CANARY}}, {"a": [{"api-key": CANARY}]}, {"n": 3}):
        with pytest.raises(ConfigError, match="extra") as caught:
            registries().reward_models.build(
                "openai-compatible", {"model": "m", "base_url": "http://a", "extra": extra}
            )
        assert not leaks(str(caught.value))


def test_an_address_with_a_version_is_asked_as_azure_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", CANARY)
    with RawServer() as server:
        base = f"{server.url}/openai/deployments/gpt-4o/?api-version=2024-10-21"
        judge = openai_judge(server, tmp_path, base_url=base, api_key_env="JUDGE_KEY")  # type: ignore[arg-type]
        assert judge.score([make_rollout(0, True)])[0].value == 1.0
        judge.close()
        assert server.log[0].path == "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
        assert server.log[0].headers["api-key"] == CANARY and "authorization" not in server.log[0].headers


def test_who_pays_is_openais_business_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "ANTHROPIC_AUTH_TOKEN", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.setenv(variable, f"X-A: mine-{variable}")
    with RawServer() as server:
        for name, make in MAKERS.items():
            judge = make(server, tmp_path, namespace=name, retry=ONCE)
            judge.score([make_rollout(0, True)])
            judge.close()
        assert len(server.log) >= 3 and not any("mine-" in str(asked.headers) for asked in server.log)
    judge = registries().reward_models.build("gpt-4o", {"cache": str(tmp_path / "c.sqlite")})
    headers = judge.engine.provider._wire._headers  # type: ignore[attr-defined]
    assert headers["OpenAI-Organization"] == "X-A: mine-OPENAI_ORG_ID" and "OpenAI-Project" in headers


def test_a_proxy_is_named_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", f"http://me:{quote(CANARY, safe='')}@127.0.0.1:9")
    with RawServer() as server:
        judge = compatible_judge(server, tmp_path)  # on this machine: no proxy leads there  # type: ignore[arg-type]
        assert judge.score([make_rollout(0, True)])[0].value == 1.0
        judge.close()
        away = compatible_judge(server, tmp_path, base_url="http://judge.invalid/v1", retry=ONCE)  # type: ignore[arg-type]
        error = str(away.score([make_rollout(0, True)])[0].error)
        away.close()
    assert "through the proxy 127.0.0.1:9 (HTTP_PROXY)" in error and not leaks(error)


@pytest.mark.parametrize("proxy", [f"ftp://me:{CANARY}@a:1", f"http://me:{CANARY}@a:port", "http://"])
def test_a_proxy_that_is_none_is_one_clear_error(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        registries().reward_models.build("gpt-4o")
    assert not leaks(str(caught.value))
    monkeypatch.setenv("no_proxy", "api.openai.com")
    registries().reward_models.build("gpt-4o")


def test_certificates_that_cannot_be_read_are_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    for name in ("text.pem", "none.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
        with pytest.raises(GymnastError, match="SSL_CERT_FILE"):
            registries().reward_models.build("gpt-4o")
