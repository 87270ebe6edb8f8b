"""`gymnast collect`: what is recorded, who acts, and that nothing but the seed decides about an episode."""

from __future__ import annotations

import json
import math

import gymnasium
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from collecting import AWAY, HERE, VIEW, collect, config, episodes, prints, rows
from reach_environment import CORNERS

from gymnast_collect.actors import Casting
from gymnast_core.cli import cli
from gymnast_core.config import load_config
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.types import EnvironmentStart

CALM = {"kind": "expert"}


def test_the_recording_is_what_the_environment_shows(tmp_path):
    summary = collect(tmp_path / "run", actor=CALM)
    assert (summary["kept"], summary["frames"], summary["fps"], summary["fps_from"]) == (4, 44, 20.0, "render_fps")
    reach = gymnasium.make(HERE).unwrapped
    for seed, episode in enumerate(episodes(tmp_path / "run")):
        observation, _ = reach.reset(seed=seed)
        assert episode.instruction == observation["task"]
        assert (episode.fps, episode.cameras) == (20.0, ("front", "top"))
        assert episode.start == EnvironmentStart(HERE, seed, {}, {})
        for t in range(11):
            for name in ("front", "top"):
                np.testing.assert_array_equal(episode.view(name)[t].numpy(), observation[name])
            np.testing.assert_allclose(episode.proprio_TP[t].numpy(), reach.at, rtol=1e-6)
            if t < 10:
                observation, *_, info = reach.step(episode.actions_TA[t].numpy())
        assert (episode.success, episode.outcomes) == (info["success"], info["hindsight"])
        assert episode.success and sum(episode.outcomes.values()) == 1
    assert [row["succeeded_after"] for row in rows(tmp_path / "run")] == [
        math.ceil(round((distance(seed, reach) - 0.08) * 10, 6)) for seed in range(4)
    ]


def distance(seed, reach):
    reach.reset(seed=seed)
    return float(np.abs(reach.at - CORNERS[reach.corner]).max())


@pytest.mark.parametrize(
    "changes",
    [
        {"parallel": 1},
        {"parallel": 8},
        {"environments": [{"id": AWAY, "name": "reach", "count": 4}], "hosting": {"workers": 2}},
        {"environments": [{"id": AWAY, "name": "reach", "count": 4}], "hosting": {"max_environments": 1}},
    ],
)
@pytest.mark.parametrize(
    "actor",
    [
        {"kind": "expert", "noise": {"white": [0.0, 0.5], "drift": 0.3}},
        {"kind": "policy", "policy": {"name": "follower"}},
    ],
)
def test_episodes_are_the_same_however_they_are_made(tmp_path, changes, actor):
    collect(tmp_path / "one", actor=actor)
    collect(tmp_path / "other", actor=actor, **changes)
    first, second = episodes(tmp_path / "one"), episodes(tmp_path / "other")
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.frames_TVHWC, other.frames_TVHWC) and torch.equal(one.actions_TA, other.actions_TA)
    if "environments" not in changes:
        assert prints(tmp_path / "one") == prints(tmp_path / "other")


def test_an_episode_does_not_depend_on_how_many_there_are(tmp_path):
    collect(tmp_path / "few", environments=[{"id": HERE, "name": "reach", "count": 2}])
    collect(tmp_path / "many", environments=[{"id": HERE, "name": "reach", "count": 6}], parallel=4)
    for one, other in zip(episodes(tmp_path / "few"), episodes(tmp_path / "many"), strict=False):
        assert torch.equal(one.actions_TA, other.actions_TA)
    collect(tmp_path / "else", seed=1)
    assert not torch.equal(episodes(tmp_path / "else")[0].actions_TA, one.actions_TA)


def test_only_successes(tmp_path):
    noisy = {"kind": "expert", "noise": {"white": 1.0}}
    families = [{"id": HERE, "name": name, "first": 100 * i, "count": 3 + i} for i, name in enumerate(("a", "b"))]
    collect(tmp_path / "run", environments=families, actor=noisy, keep="successes", parallel=5)
    found = rows(tmp_path / "run")
    assert any(row["success"] is False for row in found)
    assert [row["episode"] for row in found if row["success"]] == list(range(7))
    assert all(row["episode"] is None for row in found if not row["success"])
    assert [row["seed"] for row in found if row["family"] == "b"] == list(range(100, 100 + found[-1]["attempt"] + 1))
    assert all(episode.success for episode in episodes(tmp_path / "run"))
    # The same attempts, all of them: success is no matter of what is kept.
    everything = [{**family, "count": sum(row["family"] == family["name"] for row in found)} for family in families]
    collect(tmp_path / "all", environments=everything, actor=noisy)
    assert [row["success"] for row in rows(tmp_path / "all")] == [row["success"] for row in found]
    mixed = [*families[:1], {**families[1], "count": 1}]
    collect(tmp_path / "mixed", environments=mixed, actor=noisy, keep="successes", order="interleaved")
    order = [row["family"] for row in rows(tmp_path / "mixed")]
    assert order[:2] == ["a", "b"] and order.count("a") == sum(row["family"] == "a" for row in found)


def test_episodes_end_after_success_if_asked_and_with_their_environment(tmp_path):
    collect(tmp_path / "short", actor=CALM, horizon=30, stop_after_success=2)
    for row, episode in zip(rows(tmp_path / "short"), episodes(tmp_path / "short"), strict=True):
        assert len(episode.actions_TA) == row["succeeded_after"] + 2
    collect(tmp_path / "long", actor={"kind": "random"}, horizon=50)
    assert [row["actions"] for row in rows(tmp_path / "long")] == [30] * 4


def test_noise_is_as_large_as_it_says(tmp_path):
    still = {"kind": "expert", "function": "reach_environment:hold_still"}
    wide = [{"id": HERE, "name": "reach", "args": {"limit": 10.0}, "count": 10}]

    def actions(name, noise):
        collect(tmp_path / name, environments=wide, actor={**still, "noise": noise}, horizon=30)
        return torch.stack([episode.actions_TA for episode in episodes(tmp_path / name)]) / 10

    white_NTA = actions("white", {"white": 0.1})
    assert white_NTA.std() == pytest.approx(0.1, abs=0.012)  # 600 numbers
    assert correlation(white_NTA) == pytest.approx(0.0, abs=0.13)
    slow_NTA = actions("slow", {"drift": 0.1, "drift_actions": 4})
    assert correlation(slow_NTA) == pytest.approx(math.exp(-1 / 4), abs=0.1)
    assert slow_NTA.std() == pytest.approx(0.1, abs=0.03)
    ranged_NTA = actions("ranged", {"white": [0.02, 0.2], "dimensions": [1]})
    assert (ranged_NTA[..., 0] == 0).all()
    drawn = torch.tensor([row["noise"]["white"] for row in rows(tmp_path / "ranged")])
    assert drawn.min() >= 0.02 and drawn.max() <= 0.2 and drawn.std() > 0.03
    torch.testing.assert_close(ranged_NTA[..., 1].std(1), drawn.float(), rtol=0.5, atol=0.0)


def correlation(values_NTA):
    one, other = values_NTA[:, :-1].flatten(), values_NTA[:, 1:].flatten()
    return float((one * other).mean() / (one.std() * other.std()))


def test_gain_and_limits(tmp_path):
    collect(tmp_path / "half", actor={"kind": "expert", "noise": {"gain": 0.5}})
    first = episodes(tmp_path / "half")[0]
    assert first.actions_TA.abs().max() == pytest.approx(0.5)
    collect(tmp_path / "wild", actor={"kind": "expert", "noise": {"white": 5.0}})
    assert episodes(tmp_path / "wild")[0].actions_TA.abs().max() == 1.0


def test_random_actions_fill_the_limits_and_walks_hold_their_direction(tmp_path):
    families = [{"id": HERE, "name": "reach", "count": 10}]
    collect(tmp_path / "uniform", environments=families, actor={"kind": "random"}, horizon=30)
    uniform = torch.stack([episode.actions_TA for episode in episodes(tmp_path / "uniform")])
    assert (uniform.min() < -0.99, uniform.max() > 0.99) == (True, True)
    assert uniform.std() == pytest.approx(1 / math.sqrt(3), abs=0.04) and abs(correlation(uniform)) < 0.13
    collect(tmp_path / "walk", environments=families, actor={"kind": "random", "hold": [4, 4]}, horizon=30)
    walk = torch.stack([episode.actions_TA for episode in episodes(tmp_path / "walk")])
    assert correlation(walk) == pytest.approx(math.exp(-1 / 4), abs=0.12)
    assert {row["hold"] for row in rows(tmp_path / "walk")} == {4.0}


def test_a_mixture_has_its_weights_and_families(tmp_path):
    families = [{"id": HERE, "name": name, "first": 1000 * i, "count": 2} for i, name in enumerate(("a", "b"))]
    actors = [
        {"kind": "expert", "weight": 75},
        {"kind": "expert", "name": "still", "function": "reach_environment:hold_still", "weight": 25},
        {"kind": "random", "weight": 100, "families": ["b"]},
    ]
    mixed = {"environments": families, "actors": actors, "horizon": 2}
    casting = Casting(config(tmp_path, **mixed), {})
    shares = {name: [casting.draw(name, number)[0] for number in range(1000)] for name in ("a", "b")}
    assert shares["a"].count(0) == pytest.approx(750, abs=40) and shares["a"].count(2) == 0
    assert [shares["b"].count(i) for i in range(3)] == pytest.approx([375, 125, 500], abs=50)
    collect(tmp_path / "run", **mixed)
    labels = ("expert", "still", "random")
    assert [row["actor"] for row in rows(tmp_path / "run")] == [
        labels[shares[name][number]] for name in ("a", "b") for number in range(2)
    ]


@pytest.mark.parametrize("readings", [False, True])
def test_a_policy_sees_what_it_needs(tmp_path, readings):
    policy = {"name": "follower", "args": {"readings": readings}}
    collect(tmp_path / "calm", actor={"kind": "policy", "policy": policy, "temperature": 0.0}, horizon=16)
    assert [row["success"] for row in rows(tmp_path / "calm")] == [True] * 4
    collect(tmp_path / "hot", actor={"kind": "policy", "policy": policy, "temperature": 3.0}, horizon=16)
    assert not all(row["success"] for row in rows(tmp_path / "hot"))


def test_a_policy_that_needs_more_than_there_is(tmp_path):
    policy = {"name": "follower", "args": {"readings": True}}
    with pytest.raises(
        ConfigError, match=r"policy of actor 'policy' needs 2 proprioceptive readings.*'reach' offers no"
    ):
        collect(
            tmp_path / "run",
            actor={"kind": "policy", "policy": policy},
            view={**VIEW, "proprio": [], "proprio_dim": None},
        )


# Ends


def test_attempts_that_run_out_and_more_of_them(tmp_path):
    noisy = {"kind": "expert", "noise": {"white": 1.0}}
    families = [{"id": HERE, "name": "reach", "count": 6}]
    wanted = {"environments": families, "actor": noisy, "keep": "successes", "horizon": 8, "parallel": 4}
    with pytest.raises(DataError, match=r"'reach': \d of 6 episodes after 6 attempts.*Raise attempts=N"):
        collect(tmp_path / "run", attempts=6, **wanted)
    from gymnast_collect.command import collect_command

    collect_command(config(tmp_path / "run", attempts=100, **wanted), resume=tmp_path / "run")
    collect(tmp_path / "whole", **wanted)
    assert prints(tmp_path / "run") == prints(tmp_path / "whole")


def test_a_crash_is_tried_again_and_then_its_own_attempts_error(tmp_path, caplog):
    once = {"crash_on": [1], "crash_once": str(tmp_path / "crashed")}
    collect(tmp_path / "once", environments=[{"id": HERE, "name": "reach", "args": once, "count": 4}])
    collect(tmp_path / "never")
    assert "reach/1: RuntimeError: the dot fell off the table" in caplog.text
    for one, other in zip(episodes(tmp_path / "once"), episodes(tmp_path / "never"), strict=True):
        assert torch.equal(one.actions_TA, other.actions_TA)
    always = [{"id": AWAY, "name": "reach", "args": {"crash_on": [1]}, "count": 4}]
    summary = collect(tmp_path / "always", environments=always)
    assert (summary["kept"], summary["attempts"], summary["crashed"]) == (4, 5, 1)
    crashed = rows(tmp_path / "always")[1]
    assert "the dot fell off the table" in crashed["error"] and crashed["episode"] is None
    assert [episode.start.seed for episode in episodes(tmp_path / "always")] == [0, 2, 3, 4]


def test_an_environment_that_keeps_crashing_stops_the_recording(tmp_path):
    from gymnast_collect.command import EnvironmentsFailing

    failing = [{"id": HERE, "name": "reach", "args": {"crash_on": list(range(1, 50))}, "count": 40}]
    with pytest.raises(EnvironmentsFailing, match=r"5 of 6 attempts crashed.*fell off.*--resume"):
        collect(tmp_path / "run", environments=failing)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"actor": None}, ConfigError, "Give one of actor and actors"),
        ({"actors": [CALM], "actor": CALM}, ConfigError, "Give one of actor and actors"),
        ({"actor": {"kind": "policy"}}, ConfigError, "has no policy: set policy=NAME"),
        ({"actor": {"kind": "random", "policy": {"name": "follower"}}}, ConfigError, "has a policy; drop it"),
        ({"actor": {"kind": "random", "function": "a:b"}}, ConfigError, "has no use for function"),
        ({"actor": {"kind": "monkey"}}, ConfigError, "No kind 'monkey'"),
        ({"actor": {**CALM, "noise": {"white": [0.4, 0.1]}}}, ConfigError, "the smaller one first"),
        ({"actor": {**CALM, "noise": {"drift": "much"}}}, ConfigError, "noise.drift is 'much'; give a number"),
        ({"actor": {**CALM, "noise": {"white": -0.1}}}, ConfigError, "noise.white is -0.1"),
        ({"actor": {**CALM, "noise": {"dimensions": [2]}}}, DataError, "dimensions 0 to 1"),
        ({"actors": [{**CALM, "families": ["raech"]}]}, ConfigError, "Did you mean 'reach'"),
        ({"environments": [{"id": HERE, "name": "reach"}]}, ConfigError, "has no count"),
        ({"view": {**VIEW, "instruction_key": None}}, ConfigError, "nothing says what is to be done in reach"),
        ({"view": {**VIEW, "success_key": "won"}, "keep": "successes"}, DataError, "view.success_key=won"),
        ({"environments": [{"id": HERE, "args": {"limit": None}, "count": 1}], "actor": {"kind": "random"}},
         DataError, "limits not every action"),
        ({"actor": {"kind": "expert", "function": "reach_environment:nobody"}}, DataError, "nobody"),
        ({"to": "lerobot"}, Exception, "lerobot-v3"),
        ({"to": "worldgym", "frames": "png"}, ConfigError, "worldgym cannot store frames as png"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_error(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        collect(tmp_path / "run", **changes)


def test_the_frame_rate_is_asked_for_or_said_by_the_environment(tmp_path, monkeypatch):
    import reach_environment

    assert collect(tmp_path / "said", view={**VIEW, "action_repeat": 4})["fps"] == 5.0
    summary = collect(tmp_path / "asked", fps=7.5)
    assert (summary["fps"], summary["fps_from"], episodes(tmp_path / "asked")[0].fps) == (7.5, "fps", 7.5)
    monkeypatch.delitem(reach_environment.ReachHere.metadata, "render_fps")
    with pytest.raises(ConfigError, match="fps=N"):
        collect(tmp_path / "run")


@pytest.mark.parametrize("frames", ["lossless", "png", "video"])
def test_how_frames_are_stored(tmp_path, frames):
    collect(tmp_path / "run", frames=frames, actor=CALM)
    one = episodes(tmp_path / "run")[0].view("front")
    reach = gymnasium.make(HERE).unwrapped
    exact = torch.equal(one[0], torch.from_numpy(reach.reset(seed=0)[0]["front"]))
    assert exact == (frames != "video")


@pytest.mark.parametrize("to", ["lerobot-v2.1", "worldgym", "trials"])
def test_other_formats(tmp_path, to):
    from gymnast_core.plugins.compose import registries

    collect(tmp_path / "run", to=to)
    name = {"worldgym": "worldgym-episodes", "trials": "trials"}.get(to, "lerobot")
    args = {"action_dim": 2} if to == "worldgym" else {}
    found = registries().datasets.build(name, {"path": str(tmp_path / "run/episodes"), **args})
    assert len(found.tasks() if to == "trials" else found.episodes()) == 4


def test_the_preset_and_the_command(tmp_path):
    words = ["collect", "collect-tabletop", f"output={tmp_path / 'run'}",
             "horizon=6",
             "environments=[{id: gymnast/Tabletop-v0, args: {image_size: 16, horizon: 6}, count: 3}]"]  # fmt: skip
    done = CliRunner().invoke(cli, words, standalone_mode=False, catch_exceptions=False)
    assert json.loads(done.stdout)["kept"] == 3
    assert load_config(config(None).__class__, str(tmp_path / "run/config.yaml")).horizon == 6
    first = episodes(tmp_path / "run")[0]
    assert set(first.outcomes) > {first.instruction} and first.frames_TVHWC.shape == (7, 1, 16, 16, 3)
    with pytest.raises(ConfigError, match=r"holds a recording\. Continue it with gymnast collect --resume "):
        CliRunner().invoke(cli, words, standalone_mode=False, catch_exceptions=False)
