"""Random overrides and YAML files: each is read with the meaning that was typed, or is one clear error.

Everything that a command checks before it loads weights is done: the config is read, every component's `Config` is
made. Draws come from a seed, and a find names what repeats it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from gymnast_bench.config import BenchConfig
from gymnast_core.config import ComponentConfig, RunConfig, load_config, to_yaml
from gymnast_core.config.presets import presets
from gymnast_core.config.ranges import hints, plain
from gymnast_core.errors import GymnastError
from gymnast_core.plugins.registry import registries
from gymnast_core.training.trainer import build_trainer
from gymnast_evaluation.config import EvaluateConfig
from gymnast_fit.config import FitConfig
from gymnast_imagine.config import ImagineConfig
from gymnast_probe.config import ProbeConfig

SECONDS, LONGEST = 10, 1500
SCHEMAS: tuple[Any, ...] = (RunConfig, FitConfig, EvaluateConfig, ImagineConfig, ProbeConfig, BenchConfig)
KINDS = {
    "world_model": "world_models", "policy": "policies", "reward_model": "reward_models", "optimizer": "optimizers",
    "tasks": "datasets", "demonstrations": "datasets", "episodes": "datasets",
}  # fmt: skip
VALUES = [
    "", "null", "nan", ".nan", "inf", "-.inf", "1e400", "-1", "0", "1", "2", "0.5", "1e18", "9" * 400, "true", "no",
    "[]", "[[]]", "{}", "{a: 1}", "[1, 2]", "é", "../../etc/passwd", "${seed}", "${nope}", "${", "${loop}", "???", "\t",
    "!!python/name:os.system", "*x", "&x", "- 1", "a: b: c", '"open', "'null'", "0x10", "1_000", "12:30:45", "|", "%",
    "..", "x" * 5000, "!!binary aGk=", "<<: 1", "block #2", "lr=0.1", "\\${seed}", "${oc.env:HOME}", "{", "[", "]", "~",
    "\ufeffx", "\u2028", "\x00", "\ud800", "{name: random}", "{name: random, args: {probability: 2}}", "tabletop",
]  # fmt: skip
ODD_KEYS = (
    "", ".", "a..b", "loop.", ".loop", "seed.x", "[0]", "loop[0]", "__class__", "policy.args.__init__", "loop.horizn",
    "policy.nme", "kind", "a b", "loop loop", "\u2028", "evaluation.world.args", "trainer.max_epochs", "hooks.x.y",
    "hooks.judging.window", "trainer.accumulate_grad_batches", "world_model.args.window.x",
)  # fmt: skip


class Hang(Exception):
    pass


@contextmanager
def limited(seconds: float = SECONDS) -> Iterator[None]:
    """Raises `Hang` in the block after some seconds."""

    def end(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def checked(schema: Any, source: str | None, overrides: list[str]) -> Any:
    """The config with its components' `Config`s made, as a command does before it loads weights."""
    config = load_config(schema, source, overrides)
    for name, kind in KINDS.items():
        part = getattr(config, name, None)
        if isinstance(part, ComponentConfig):
            getattr(registries(), kind).configure(part.name, part.args, key=name)
    if isinstance(config, RunConfig):
        build_trainer({key: value for key, value in config.trainer.items() if key != "precision"})
    return config


def keys_of(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a schema with its declared type."""
    for name, hint in hints(schema).items():
        inner = plain(hint)
        yield f"{path}{name}", hint
        if dataclasses.is_dataclass(inner):
            yield from keys_of(inner, f"{path}{name}.")


def component_keys(config: Any) -> Iterator[tuple[str, Any]]:
    """Every key of the arguments of a config's components, with its type."""
    for name, kind in KINDS.items():
        part = getattr(config, name, None)
        if isinstance(part, ComponentConfig):
            yield from keys_of(getattr(registries(), kind).load(part.name).Config, f"{name}.args.")


def at(config: Any, key: str) -> Any:
    """The value of a dotted key, a component's argument as its `Config` has it."""
    name, *rest = key.split(".")
    if name in KINDS and rest[:1] == ["args"]:
        part = getattr(config, name)
        config, rest = getattr(registries(), KINDS[name]).configure(part.name, part.args), rest[1:]
    else:
        config = getattr(config, name)
    for field in rest:
        config = config[field] if isinstance(config, dict) else getattr(config, field)
    return config


def kept(hint: Any, text: str, value: Any) -> bool:
    """Whether a value is what was typed, as far as its type tells."""
    kind = plain(hint)
    if text == "null":
        return value is None
    if "${" in text or text[:1] in "'\"[{":
        return True
    if kind is str:
        return value == text
    if kind is float:
        return math.isclose(value, float(text))
    if kind is int:
        return value == int(text, 0)
    if kind is bool:
        return value is (text.lower() in ("true", "yes", "on", "y", "1"))
    return True


def verdict(read: Callable[[], Any], right: Callable[[Any], bool]) -> str:
    """ "read", "refused", or what is wrong."""
    try:
        with limited():
            found = read()
    except GymnastError as error:
        return "refused" if 0 < len(str(error)) < LONGEST else f"an error of {len(str(error))} characters"
    except Hang:
        return f"no end in {SECONDS} s"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "read" if right(found) else "another meaning"


def overrides(count: int, seed: int, tally: Counter[str]) -> list[str]:
    """Any KEY=VALUE of any command: what is wrong about `count` of them."""
    found = []
    bases = [(preset.name, schema) for preset in presets() for schema in SCHEMAS if schema.kind == preset.kind]
    known = {}
    for name, schema in bases:
        config = load_config(schema, name)
        known[name] = [*keys_of(schema), *component_keys(config)]
    for i in range(count):
        draw = random.Random(f"{seed}/override/{i}")
        name, schema = draw.choice(bases)
        key, hint = draw.choice(known[name]) if draw.random() < 0.85 else (draw.choice(ODD_KEYS), Any)
        text = draw.choice(VALUES)

        def right(config: Any, key: str = key, hint: Any = hint, text: str = text) -> bool:
            return hint is Any or kept(hint, text, at(config, key))

        word = verdict(partial(checked, schema, name, [f"{key}={text}"]), right)
        tally[word] += 1
        if word not in ("read", "refused"):
            found.append(f"override {i} of seed {seed}, {name} {key}={text[:60]!r}: {word}")
    return found


def another_editor(text: str, draw: random.Random, _: Any) -> tuple[str, bool]:
    """The same YAML as others would write it."""
    values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    assert isinstance(values, dict)
    shuffled = {key: values[key] for key in draw.sample(list(values), len(values))}
    if draw.random() < 0.3:
        text = json.dumps(shuffled, ensure_ascii=draw.random() < 0.5)
    else:
        text = yaml.safe_dump(shuffled, width=10**9, allow_unicode=draw.random() < 0.5)
        lines = [line for part in text.splitlines() for line in ([part, "# no: 3"] if draw.random() < 0.2 else [part])]
        text = "\n".join(lines)
    return draw.choice(["", "\ufeff", "---\n", "# x\n"]) + text.replace("\n", draw.choice(["\n", "\r\n"])), True


def damaged(text: str, draw: random.Random, _: Any) -> tuple[str, bool]:
    """Some signs changed, cut, doubled."""
    place = draw.randrange(len(text))
    signs = draw.choice(
        ["\t", "{", "}", "[", "]", ":", "-", "#", "'", '"', "&a ", "*a ", "!", "|", ">", "%", "\x07", "\ud800"]
    )
    return draw.choice(
        [text[:place], text[:place] + signs + text[place:], text[:place] + text[place + 7 :], text + "\n" + text,
         "[" * 5000, text[:place] + "a: " * 300 + text[place:]]
    ), False  # fmt: skip


def other_value(text: str, draw: random.Random, schema: Any) -> tuple[str, bool]:
    """A value of another type somewhere."""
    values: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    node = values
    while True:
        key = draw.choice(list(node))
        if not isinstance(node[key], dict) or not node[key] or draw.random() < 0.3:
            break
        node = node[key]
    node[key] = draw.choice(
        [None, True, -1, 10**30, 1.5, "", "x", [], {}, [[]], [None], {"a": 1}, "${", "9" * 50, 1e308]
    )
    return json.dumps(values), False


def files(count: int, seed: int, tally: Counter[str], folder: Path) -> list[str]:
    """Any YAML file of any command: what is wrong about `count` of them."""
    found = []
    known = []
    for preset in presets():
        for schema in SCHEMAS:
            if schema.kind == preset.kind:
                known.append((preset.name, schema, load_config(schema, preset.name)))
    for i in range(count):
        draw = random.Random(f"{seed}/file/{i}")
        name, schema, whole = draw.choice(known)
        change = draw.choice([another_editor, damaged, other_value])
        text, same = change(to_yaml(whole), draw, schema)
        path = folder / "config.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))

        def right(config: Any, whole: Any = whole, same: bool = same) -> bool:
            return config == whole or not same

        word = verdict(partial(checked, schema, str(path), []), right)
        if same and word == "refused":
            word = "refused, though it says the same"
        tally[word] += 1
        if word not in ("read", "refused"):
            found.append(f"file {i} of seed {seed}, {name} by {change.__name__}: {word}")
    return found
