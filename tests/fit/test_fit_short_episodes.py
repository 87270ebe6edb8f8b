"""Episodes that are too short to learn from: counted and left out at the start, or refused, never met half-way."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import toy

from gymnast_core.config import load_config
from gymnast_core.config.schema import RunConfig
from gymnast_core.errors import DataError
from gymnast_core.plugins.compose import build_parts
from gymnast_core.processes import Processes
from gymnast_core.short_episodes import long_enough

Fit = Callable[..., Path]
LEARNER = "reward_model={name: toy, args: {least: 3}}"
SHORT = "{count: 20, length: 4, short: [3, 7, 11]}"
OTHERS = [i for i in range(20) if i not in (3, 7, 11)]


def episodes(**args: object) -> toy._Readable:
    config = toy.ToyEpisodes.Config(count=20, length=4, short=[3, 7, 11])
    found = toy.ToyEpisodes(replace(config, **args)).episodes()
    assert isinstance(found, toy._Readable)
    return found


def learner(least: int) -> toy.Toy:
    return toy.Toy(toy.Toy.Config(least=least))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fit_leaves_them_out_and_says_how_many(fit: Fit, caplog: pytest.LogCaptureFixture, workers: int) -> None:
    with caplog.at_level(logging.WARNING):
        run = fit(LEARNER, f"episodes={{name: toy-episodes, args: {SHORT}}}", steps=6, workers=workers)
    assert json.loads((run / "summary.json").read_text())["steps"] == 6
    (line,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert "episodes: 3 of 20 episodes are left out" in line and "fewer than the 3 actions that Toy learns" in line


def test_held_out_episodes_are_chosen_alike(fit: Fit, caplog: pytest.LogCaptureFixture) -> None:
    held_out = "validation={name: toy-episodes, args: {count: 5, length: 4, short: [0]}}"
    with caplog.at_level(logging.WARNING):
        run = fit(LEARNER, "episodes.args.length=4", held_out, steps=1, validation_episodes=2)
    assert "validation: 1 of 5 episodes are left out" in caplog.text
    model = learner(3)
    model.network.load_state_dict(toy.checkpoint(run))
    model.network.eval()
    source = toy.ToyEpisodes(toy.ToyEpisodes.Config(count=5, length=4)).episodes()
    error = model.validate([source[1], source[3]], generator=None)["error"]  # type: ignore[arg-type]
    assert json.loads((run / "summary.json").read_text())["validation"]["error"] == error


def test_a_fit_can_refuse_them(fit_error: Callable[..., str]) -> None:
    message = fit_error(LEARNER, f"episodes={{name: toy-episodes, args: {SHORT}}}", "fit.short_episodes=refuse")
    for part in ("3 of 20 episodes have fewer than the 3 actions", "first '3' with 1", "the longest has 3", "=pad"):
        assert part in message


def test_none_that_is_long_enough_is_an_error_at_the_start(fit_error: Callable[..., str], tmp_path: Path) -> None:
    message = fit_error("reward_model={name: toy, args: {least: 5}}", "episodes.args.length=4")
    assert "20 of 20 episodes have fewer than the 5 actions" in message and "the longest has 3" in message
    assert not (tmp_path / "run").exists()


def test_a_resumed_fit_keeps_its_choice(fit: Fit) -> None:
    run = fit(LEARNER, f"episodes={{name: toy-episodes, args: {SHORT}}}", steps=2, checkpoint_every=1)
    kept = [LEARNER, f"episodes={{name: toy-episodes, args: {SHORT}}}"]
    with pytest.raises(Exception, match=r"fit\.short_episodes"):
        fit(*kept, "fit.short_episodes=refuse", resume=run, steps=4)


def test_what_is_left_keeps_its_order_and_is_read_when_it_is_asked_for() -> None:
    kept = long_enough(episodes(), learner(3), "episodes")
    assert [episode.id for episode in kept] == [str(i) for i in OTHERS]
    assert [episode.id for episode in kept[1:4]] == ["1", "2", "4"] and kept[-1].id == "19"
    # Lengths that are known are not read: these episodes could not be.
    torn = episodes(tells=True, bad=list(range(20)))
    assert len(long_enough(torn, learner(3), "episodes")) == 17
    assert long_enough(torn, learner(1), "episodes") is torn
    assert long_enough(torn, learner(0), "episodes") is torn
    with pytest.raises(DataError, match="Episode 0 is torn"):
        long_enough(episodes(bad=[0]), learner(3), "episodes")


def test_equally_long_episodes_may_say_so_with_one_number() -> None:
    all_alike = episodes(bad=list(range(20)))
    all_alike.frames = 4  # type: ignore[assignment]
    assert long_enough(all_alike, learner(3), "episodes") is all_alike
    all_alike = episodes()
    all_alike.frames = 2  # type: ignore[assignment]
    with pytest.raises(DataError, match="20 of 20 episodes have fewer than the 3 actions"):
        long_enough(all_alike, learner(3), "episodes")


def test_demonstrations_of_a_run_are_chosen_at_its_start(caplog: pytest.LogCaptureFixture) -> None:
    tower = "{patch_size: 8, width: 16, depth: 2, heads: 2}"
    sizes = "image_size: 16, llm_width: 32, llm_layers: 1, llm_heads: 2, llm_intermediate: 32, action_low: [-1, -1]"
    policy = (
        f"policy={{name: openvla-oft, args: {{chunk_length: 3, architecture: {{{sizes}, action_high: [1, 1], "
        f"tokenizer_corpus: [look], dino: {tower}, siglip: {tower}}}}}}}"
    )
    config = load_config(
        RunConfig,
        None,
        [
            policy, "world_model=gymnasium", "reward_model={name: random}", "optimizer=iter-sft",
            "tasks={name: tabletop, args: {count: 4, image_size: 16}}", "loop.horizon=3",
            f"demonstrations={{name: toy-episodes, args: {SHORT}}}",
        ],
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        parts = build_parts(config, left=None, processes=Processes())
    assert [episode.id for episode in parts.demonstrations] == [str(i) for i in OTHERS]
    assert "demonstrations: 3 of 20 episodes are left out" in caplog.text
