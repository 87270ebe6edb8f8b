"""A value for a field that holds text is what was typed; nothing of the environment gets into a config."""

import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gymnast_core.config import ComponentConfig, load_config, parse_overrides, to_yaml
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError


@dataclass(frozen=True)
class Args:
    instruction: str = ""
    folder: str | None = None
    names: list[str] = field(default_factory=list)
    rate: float = 0.1
    count: int = 1
    on: bool = False


@dataclass(frozen=True)
class Command:
    kind: ClassVar[str] = "try"
    output: str | None = None
    policy: ComponentConfig = field(default_factory=lambda: ComponentConfig("p"))
    trainer: dict[str, Any] = field(default_factory=dict)


TEXTS = ["pick up block #2", "no", "12:30", "a: b", "lr=0.1", "data, v2: final", "007", "0x10", "1_000", "1e5", "1.50"]
TEXTS += [
    "true",
    "True",
    "off",
    "~",
    "- a",
    "[red] block",
    "{half",
    "'tis",
    '"so" he said',
    "%x",
    "@home",
    "a\\b",
    "*",
    "&a",
]
TEXTS += [
    "!tag",
    "|",
    ">",
    "?",
    "2026-11-28",
    "1.0",
    "16",
    "-0",
    "+5",
    ".5",
    "5.",
    "null!",
    "$5",
    "$x",
    " lead",
    "trail ",
]


def through(text):
    """The value at a field of the command and at one of a component's arguments, also after the round trip by YAML."""
    config = load_config(Command, None, [f"output={text}", f"policy.args.instruction={text}"])
    return config, typed(Args, config.policy.args)


def test_brackets_are_signs_of_a_field_that_holds_text():
    for text in ("[a]", "{b}", "{b: 1}", "[]"):
        assert load_config(Command, None, [f"output={text}"]).output == text
        with pytest.raises(ConfigError, match="instruction"):
            through(text)


@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_text(text, tmp_path):
    config, args = through(text)
    assert (config.output, args.instruction) == (text, text)
    stored = tmp_path / "config.yaml"
    stored.write_text(to_yaml(config))
    again = load_config(Command, str(stored))
    assert (again.output, typed(Args, again.policy.args).instruction) == (text, text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip))
def test_any_text_is_what_was_typed_or_refused(text):
    try:
        config, args = through(text)
    except ConfigError as error:
        # A reference to another key, a value that was to be said, and the word for none, where there must be one.
        assert "${" in text or text in ("???", "null") or text.strip()[0] in "[{", error
        return
    if "${" in text:
        return
    quoted = len(text) > 1 and text.strip()[0] in "'\"" and text.strip()[-1] == text.strip()[0]
    if text in ("null",) or quoted or text.strip()[0] in "[{":
        return
    assert (config.output, args.instruction) == (text, text)


def test_quotes_say_that_it_is_text():
    config, args = through("'null'")
    assert (config.output, args.instruction) == ("null", "null")
    assert through('"a \\" b"')[1].instruction == 'a " b'
    assert load_config(Command, None, ["output=null"]).output is None


@pytest.mark.parametrize(
    "text, rate, count, on", [("1e-4", 1e-4, 3, True), ("5E-6", 5e-6, 0, False), (".5", 0.5, 7, True)]
)
def test_fields_of_other_types_convert_what_was_typed(text, rate, count, on):
    words = [f"policy.args.rate={text}", f"policy.args.count={count}", f"policy.args.on={'yes' if on else 'off'}"]
    args = typed(Args, load_config(Command, None, words).policy.args)
    assert (args.rate, args.count, args.on) == (rate, count, on)


def test_lists_and_keys_are_read_in_flow_style_and_their_words_stay():
    words = ["policy={name: q, args: {names: [no, 12:30, 'a, b', 007], instruction: block#2, count: 3}}"]
    args = typed(Args, load_config(Command, None, words).policy.args)
    assert args.names == ["no", "12:30", "a, b", "007"]
    assert (args.instruction, args.count) == ("block#2", 3)


def test_a_key_reference_is_replaced_and_an_escaped_one_is_not():
    config = load_config(
        Command, None, ["output=x", "policy.args.folder=${output}/y", r"policy.args.instruction=\${output}"]
    )
    assert config.policy.args == {"folder": "x/y", "instruction": "${output}"}
    assert typed(Args, config.policy.args).instruction == "${output}"


FORMS = [
    ["${oc.env:SECRET}"],
    ["${ oc.env:SECRET}"],
    ["${oc.env :SECRET}"],
    ["${\toc.env:SECRET}"],
    ['"\\x24{oc.env:SECRET}"'],
    ['"${oc\\x2eenv:SECRET}"'],
    ['"${oc.\\u0065nv:SECRET}"'],
    ["${oc.${policy.args.b}:SECRET}", "policy.args.b=env"],
    ["${policy.args.b}{oc.env:SECRET}", "policy.args.b=$"],
    [r"\${oc.env:SECRET}"],
    [r"\\${oc.env:SECRET}"],
    ["x${oc.decode:${oc.env:SECRET}}"],
    ["${oc.select:x,${oc.env:SECRET}}"],
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form[0])
@pytest.mark.parametrize("place", ["output", "policy.args.a", "trainer.x"])
def test_no_spelling_reads_the_environment(form, place, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "sk-secret-0123")
    value, *more = form
    try:
        config = load_config(Command, None, [f"{place}={value}", *more])
        text = str(config) + to_yaml(config)
        stored = tmp_path / "config.yaml"
        stored.write_text(to_yaml(config))
        text += str(load_config(Command, str(stored))) + str(typed(dict_of_any(), config.policy.args))
    except ConfigError as error:
        text = str(error)
    assert os.environ["SECRET"] not in text


def dict_of_any():
    @dataclass(frozen=True)
    class Anything:
        a: Any = None
        b: Any = None

    return Anything


def test_an_override_without_a_key_is_refused_shortly():
    for wrong in ("=3", "a..b=3", "a b=3", ".a=3", "a.=3", "x" * 5000):
        with pytest.raises(ConfigError, match="is not an override") as error:
            parse_overrides([wrong])
        assert len(str(error.value)) < 400
