"""Keys, organisations and logins of the editors: sent to whom they are for, and shown to nobody."""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from editing_server import Server, said
from escapings import CANARY, ESCAPINGS, leaks
from test_editors import IMAGE

from gymnast_core.errors import ConfigError
from gymnast_probe.interfaces import EditorFailed
from gymnast_probe.openai_editor import OpenAIEditor
from gymnast_probe.proposed_instructions import ProposedInstructions

EDITORS: dict[str, type] = {"picture": OpenAIEditor, "instruction": ProposedInstructions}
MINE = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "OPENAI_WEBHOOK_SECRET")


def ask(kind: str, url: str, **settings: Any) -> Any:
    """One request, without a second attempt."""
    editor = EDITORS[kind](EDITORS[kind].Config(base_url=url, max_retries=0, **settings))
    try:
        return editor.edit(IMAGE, "x", seed=0) if kind == "picture" else editor.propose(IMAGE, "push it", seed=0)
    finally:
        editor.close()


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MINE:
        monkeypatch.setenv(name, f"mine-{name}")
    monkeypatch.setenv("OPENAI_API_KEY", "mine-key")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Custom: mine-header\nAuthorization: Bearer mine-other-key")


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("kind", EDITORS)
def test_a_stranger_is_sent_nothing_of_openais(kind: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = lambda fields: said('["push the cup"]')
    if kind == "instruction":
        assert ask(kind, server.url).instructions == ("push the cup",)
    else:
        with pytest.raises(EditorFailed, match="returned no picture"):
            ask(kind, server.url)
    assert "mine" not in str(server.headers) and "authorization" not in server.headers[0]
    monkeypatch.setenv("THEIR_KEY", "for-them")
    with pytest.raises(EditorFailed) if kind == "picture" else _nothing():
        ask(kind, server.url, api_key_env="THEIR_KEY")
    assert server.headers[1]["authorization"] == "Bearer for-them" and "mine" not in str(server.headers)


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("kind", EDITORS)
def test_openai_is_sent_the_key_and_who_pays(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")  # the client's own setting names no server of ours
    editor = EDITORS[kind](EDITORS[kind].Config())
    client = editor._service._client
    assert str(client.base_url) == "https://api.openai.com/v1/"
    request = client._client.build_request("POST", "https://api.openai.com/v1/x", headers=client.default_headers)
    editor._service._set_headers(request)
    assert request.headers["authorization"] == "Bearer mine-key"
    assert request.headers["openai-organization"] == "mine-OPENAI_ORG_ID"
    assert request.headers["openai-project"] == "mine-OPENAI_PROJECT_ID" and "x-custom" not in request.headers
    editor.close()


@pytest.mark.parametrize("kind", EDITORS)
@pytest.mark.parametrize("escape", ESCAPINGS.values(), ids=ESCAPINGS)
def test_a_server_that_repeats_the_key_shows_it_to_nobody(
    kind: str,
    escape: Callable[[str], str],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MY_KEY", CANARY)
    texts = []
    answers: list[tuple[int, Any]] = [
        (401, {"error": {"message": f"bad token Bearer {escape(CANARY)}", "code": escape(CANARY)}}),
        said(f"I was sent {escape(CANARY)}"),
        (200, {"data": [{"b64_json": base64.b64encode(escape(CANARY).encode()).decode()}]}),
        (302, {"error": escape(CANARY)}),
    ]
    with caplog.at_level(logging.DEBUG, logger=""):
        for answer in answers:
            server.answer = lambda fields, answer=answer: answer
            with pytest.raises(EditorFailed) as caught:
                ask(kind, server.url, api_key_env="MY_KEY")
            texts.append("".join(traceback.format_exception(caught.value)))
    assert not leaks("".join(texts)) and not leaks(caplog.text)


@pytest.mark.parametrize("kind", EDITORS)
@pytest.mark.parametrize(
    "address",
    [
        f"http://me:{CANARY}@127.0.0.1/v1", f"http://127.0.0.1/v1?api-key={CANARY}", f"http://127.0.0.1/v1#{CANARY}",
        f"http://127.0.0.1:{CANARY}/v1", f"//{CANARY}@127.0.0.1/v1",
    ],
)  # fmt: skip
def test_secrets_in_an_address_are_refused_unseen(kind: str, address: str) -> None:
    with pytest.raises(ConfigError, match="base_url") as caught:
        EDITORS[kind](EDITORS[kind].Config(base_url=address))
    assert not leaks("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("kind", EDITORS)
def test_a_key_that_can_be_none_is_refused_unseen(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{CANARY}\n# mine")
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY.*several lines") as caught:
        EDITORS[kind](EDITORS[kind].Config())
    assert not leaks("".join(traceback.format_exception(caught.value)))
    with pytest.raises(ConfigError, match="api_key_env") as caught:
        EDITORS[kind](EDITORS[kind].Config(api_key_env=CANARY))
    assert not leaks(str(caught.value))


def test_a_redirect_is_not_followed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", CANARY)
    server.answer = lambda fields: (307, {"error": {"message": "elsewhere"}})
    with pytest.raises(EditorFailed):
        ask("instruction", server.url, api_key_env="MY_KEY")
    assert len(server.requests) == 1


def test_a_version_in_the_address_is_asked_as_azure_wants_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "for-azure")
    server.answer = lambda fields: said('["push the cup"]')
    ask("instruction", f"{server.url}?api-version=2024-10-21", api_key_env="MY_KEY")
    assert server.requests[0][0] == "/v1/chat/completions?api-version=2024-10-21"
    assert server.headers[0]["api-key"] == "for-azure" and "authorization" not in server.headers[0]


def test_a_proxys_password_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", f"http://me:{quote(CANARY, safe='')}@127.0.0.1:9")
    with pytest.raises(EditorFailed) as caught:
        ask("instruction", "http://editor.invalid/v1")
    assert not leaks("".join(traceback.format_exception(caught.value))) and caught.value.cost_usd == 0.0
