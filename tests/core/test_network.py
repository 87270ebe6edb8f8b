"""Addresses, keys and vendors: what may be secret is refused or masked, and goes to whom it is for."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

import pytest
from escapings import CANARY, ESCAPINGS, leaks

from gymnast_core.errors import ConfigError
from gymnast_core.network.address import read_address, refuse_secrets
from gymnast_core.network.secrecy import Mask, Secret, read_key, secrets_in
from gymnast_core.network.vendors import OPENAI


@pytest.mark.parametrize("escape", ESCAPINGS.values(), ids=ESCAPINGS)
def test_the_mask_knows_every_escaping(escape: Callable[[str], str]) -> None:
    before, after = "the key is ", ' and then {"score": 1}'
    masked = Mask([CANARY, None])(before + escape(CANARY) + after)
    assert not leaks(masked) and "[key]" in masked
    assert masked.startswith(before) and masked.endswith(after)


def test_what_is_no_secret_stays() -> None:
    text = '{"reasoning": "sk-canary is a bird; x y EMPTY", "score": 1}'
    assert Mask([CANARY, "x", ""])(text) == text


@pytest.mark.parametrize("text", ["a" * 100_000, CANARY[:11] * 9_000, "\\" * 100_000, "%25" * 30_000, "s " * 50_000])
def test_masking_takes_no_longer_than_reading(text: str) -> None:
    mask, began = Mask([CANARY]), time.process_time()
    mask(text)
    assert time.process_time() - began < 1.0


def test_a_key_is_read_or_its_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY is not set: it must hold the key for the server"):
        read_key("MY_KEY", "the server", "token_env")
    assert read_key("MY_KEY", "the server", "token_env", needed=False) is None
    assert read_key(None, "the server", "token_env") is None
    monkeypatch.setenv("MY_KEY", f" {CANARY}\n")
    key = read_key("MY_KEY", "the server", "token_env")
    assert key is not None and key.value == CANARY and repr(key) == repr(Secret("x")) == "[key]"


@pytest.mark.parametrize(("key", "words"), [(f"{CANARY}\n# mine", "several lines"), (f"Bearer {CANARY}", "spaces")])
def test_a_key_that_can_be_none_is_refused_unseen(key: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(ConfigError, match=f"MY_KEY.*{words}") as caught:
        read_key("MY_KEY", "the server", "token_env")
    assert not leaks("".join(traceback.format_exception(caught.value)))
    if words == "spaces":
        assert read_key("MY_KEY", "the server", "token_env", spaces=True) is not None


@pytest.mark.parametrize(
    "address",
    [
        f"ws://me:{CANARY}@127.0.0.1:8000", f"ws://{CANARY}@127.0.0.1", f"ws://127.0.0.1/?token={CANARY}",
        f"ws://127.0.0.1:8000#{CANARY}", f"ws://127.0.0.1:{CANARY}", f"ws://127.0.0.1 {CANARY}", f"http://{CANARY}",
    ],
)  # fmt: skip
def test_secrets_in_an_address_are_refused_unseen(address: str) -> None:
    with pytest.raises(ConfigError, match="url") as caught:
        read_address(address, "url", key_option="token_env", schemes=("ws", "wss"), example="ws://127.0.0.1:8000")
    assert not leaks("".join(traceback.format_exception(caught.value)))


def test_an_address_keeps_what_is_no_secret() -> None:
    address = read_address("WSS://Host.example:81/a/b/", "url", key_option="token_env", schemes=("ws", "wss"))
    assert (address.base, address.host, address.query) == ("wss://host.example:81/a/b", "host.example", "")
    with pytest.raises(ConfigError, match=r"must begin with ws:// or wss://.*For example ws://here"):
        read_address("http://a", "url", key_option="token_env", schemes=("ws", "wss"), example="ws://here")


@pytest.mark.parametrize("address", [f"ray://me:{CANARY}@head:10001", f"head:6379?token={CANARY}"])
def test_addresses_of_others_hold_no_login(address: str) -> None:
    with pytest.raises(ConfigError, match=r"engine.args.address holds .* Ray takes HOST:PORT") as caught:
        refuse_secrets(address, "engine.args.address", "Ray takes HOST:PORT.")
    assert not leaks(str(caught.value))
    refuse_secrets("ray://head:10001", "engine.args.address", "")


def test_a_vendors_key_and_payer_are_the_vendors_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj\nmine")  # no header can hold it
    own = read_address(OPENAI.base_url, "url", key_option="key")
    for text in (
        "https://api.openai.com.evil.example/v1",
        "http://127.0.0.1/v1",
        "https://evil.example/api.openai.com",
    ):
        stranger = read_address(text, "url", key_option="key")
        assert OPENAI.key_variable(None, stranger) is None and OPENAI.payer_headers(stranger) == {}
        assert OPENAI.key_variable("MY_KEY", stranger) == "MY_KEY"
    assert OPENAI.key_variable(None, own) == "OPENAI_API_KEY" and OPENAI.key_variable("MY_KEY", own) == "MY_KEY"
    assert OPENAI.payer_headers(own) == {"OpenAI-Organization": "org-mine"}


def test_secrets_of_the_environment_are_known_to_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKER_KEY", CANARY)
    monkeypatch.setenv("https_proxy", "http://me:proxy-password@proxy:3128")
    mask = Mask(secrets_in(("TRACKER_KEY", "NOT_SET")))
    assert mask(f"401: {CANARY} via http://me:proxy-password@proxy") == "401: [key] via http://[key]@proxy"
