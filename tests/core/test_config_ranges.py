"""Ranges declared beside a config's fields: refused at the door, and nothing else is."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gymnast_core.config import LoopConfig, RunConfig
from gymnast_core.config.load import load_config
from gymnast_core.config.ranges import Choices, Count, Range, Seed, ZeroOrMore, check_values, undeclared
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    share: Annotated[float, Range(least=0, below=1)] = 0.5


@dataclass(frozen=True)
class Outer:
    rate: Annotated[float, Range(above=0)] = 1.0
    rounds: Count | None = None
    bounds: list[Annotated[float, Range(least=-1, most=1)]] = field(default_factory=lambda: [0.0])
    by_name: dict[str, Annotated[float, Range(most=2)]] = field(default_factory=dict)
    order: Annotated[str, Choices("given", "random")] = "given"
    inner: Inner = field(default_factory=Inner)
    args: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"rate": 0}, "x.rate is 0; it must be above 0."),
        ({"rate": math.nan}, "x.rate is nan; it must be above 0."),
        ({"rate": math.inf}, "x.rate is inf; it must be above 0."),
        ({"rounds": 0}, "x.rounds is 0; it must be at least 1."),
        ({"rounds": 2**63}, "x.rounds is 9223372036854775808; it must be at least 1."),
        ({"bounds": [0.0, -1.5]}, "x.bounds[1] is -1.5; it must be at least -1 and at most 1."),
        ({"by_name": {"a": 3}}, "x.by_name.a is 3; it must be at most 2."),
        ({"order": "gven"}, "x.order: No order 'gven'. Did you mean 'given'? Known: given, random."),
        ({"inner": {"share": 1}}, "x.inner.share is 1; it must be at least 0 and below 1."),
        ({"args": {"depth": {"rate": math.inf}}}, "x.args.depth.rate is inf; it must be a finite number."),
    ],
)
def test_a_value_outside_its_range_is_refused_with_its_key(values, message):
    with pytest.raises(ConfigError) as error:
        typed(Outer, values, "x")
    assert str(error.value) == message


def test_bounds_belong_to_a_range_or_not_as_declared():
    assert typed(Outer, {"inner": {"share": 0}, "bounds": [-1, 1], "by_name": {"a": 2}, "rounds": 1}).rounds == 1
    assert typed(Outer, {"rounds": None}).rounds is None


@given(
    least=st.one_of(st.none(), st.integers(-5, 5)),
    most=st.one_of(st.none(), st.integers(-5, 5)),
    value=st.floats(-10, 10),
)
def test_a_range_holds_what_lies_between_its_bounds(least, most, value):
    within = (least is None or value >= least) and (most is None or value <= most)
    assert Range(least=least, most=most).holds(value) == within
    exclusive = (least is None or value > least) and (most is None or value < most)
    assert Range(above=least, below=most).holds(value) == exclusive


def test_numbers_without_a_declared_range_are_found():
    @dataclass(frozen=True)
    class Bare:
        name: str = ""
        flag: bool = True
        known: Seed = 0
        plain: int = 1
        optional: float | None = None
        listed: list[int] = field(default_factory=list)
        inner: Inner = field(default_factory=Inner)

    assert undeclared(Bare) == ["plain", "optional", "listed"]


def test_every_number_of_a_run_has_its_range_and_keeps_it():
    assert undeclared(RunConfig) == []
    check_values(LoopConfig, dataclasses.asdict(LoopConfig()))


@pytest.mark.parametrize(
    "override, words",
    [
        *((f"loop.temperature={value}", "loop.temperature is") for value in ("-1", "0", "nan", "-inf", "1e-40")),
        ("evaluation.temperature=-1", "evaluation.temperature is -1; it must be at least 0."),
        ("loop.temperature=.nan", "loop.temperature: Value '.nan'"),
        ("loop.max_error_rate=-inf", "loop.max_error_rate is -inf; it must be at least 0 and at most 1."),
        ("loop.horizon=0", "loop.horizon is 0"),
        ("seed=-1", "seed is -1"),
        ("seed=1e400", "seed"),
        ("checkpoint_every=0", "checkpoint_every is 0"),
        ("checkpoint_share=0", "checkpoint_share is 0"),
        ("optimizer=???", "Missing value: optimizer.name"),
        ("evaluation.tasks=[[]]", "evaluation.tasks takes keys (name, args)"),
        ("loop=3", "loop takes keys"),
        ("loop.horizon=[4]", "loop.horizon"),
        ("loop.horizon=true", "loop.horizon"),
        ("loop.drop_incomplete_groups=-1", "loop.drop_incomplete_groups is -1; it must be true or false."),
        ("loop.drop_incomplete_groups=2", "loop.drop_incomplete_groups is 2; it must be"),
        ("optimizer.args=5", "optimizer.args"),
    ],
)
def test_overrides_that_cannot_be_are_refused_at_the_door(override, words):
    with pytest.raises(ConfigError) as error:
        config = load_config(RunConfig, "tabletop", [override])
        from gymnast_core.plugins.registry import registries

        registries().optimizers.configure(config.optimizer.name, config.optimizer.args, key="optimizer")
    assert words in str(error.value)
    assert len(str(error.value)) < 400


def test_aliases_say_what_they_take():
    assert typed(LoopConfig, {"iterations": 0}).iterations == 0
    assert ZeroOrMore.__metadata__[0] == Range(least=0)
