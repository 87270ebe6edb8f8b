"""When a rollout first succeeds, as judges of clips see it."""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future
from dataclasses import replace

import gymnasium
import gymnast_tabletop  # noqa: F401
import numpy as np
import pytest
import torch
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.compose import registries
from gymnast_core.testing.reward_model import check_reward_model
from gymnast_core.types import Reward, Rollout, Task, one_camera
from gymnast_tabletop.experts import Expert
from gymnast_tabletop.instructions import parse
from wovr_parts import Brightness, build, make_rollout

from gymnast_wovr.clips import clip, clip_ends
from gymnast_wovr.first_hit import FirstHit


def first_hit(**args) -> FirstHit:
    return build("reward_models", "first-hit", {"reward_model": {"name": "brightness"}, "every": 2, **args})


def test_the_first_clip_that_succeeds_ends_the_rollout():
    # Bright at step 3 already, but a clip ends at 4; and dark again at the end, where a plain judge looks.
    rollout = make_rollout([10, 10, 10, 200, 200, 200, 10, 10, 10])
    (reward,) = first_hit().score([rollout])
    assert reward.value == 1.0 and reward.finish_step == 4
    assert reward.rationale == "First success after 4 of 8 actions." and reward.cost_usd == 4 * 0.25
    assert Brightness(Brightness.Config()).score([rollout])[0].value == 0.0
    (exact,) = first_hit(every=1).score([make_rollout([10, 10, 10, 200, 200, 200, 10, 10, 10], seed=1)])
    assert exact.rationale.startswith("First success after 3 ")


def test_without_a_success_it_is_the_judgement_of_the_whole_rollout():
    rollout = make_rollout([10, 10, 90, 10, 60])
    (reward,) = first_hit().score([rollout])
    assert reward.value == 0.0 and reward.partial == pytest.approx(60 / 255) and reward.finish_step is None


def test_what_follows_the_end_of_an_episode_is_not_judged():
    judge = first_hit()
    (reward,) = judge.score([make_rollout([10, 10, 90, 10, 60, 60, 200], ended_after=3)])
    assert reward.value == 0.0 and judge._judge.asked == [3, 4]
    assert clip(make_rollout(list(range(9)), ended_after=6), 7, frames=4).ended_after == 2
    assert clip(make_rollout(list(range(9)), ended_after=6), 5).ended_after is None


def test_an_unjudged_clip_before_the_first_hit_is_an_error_and_after_it_is_not():
    before, after = make_rollout([10, 10, 0, 10, 200], seed=1), make_rollout([10, 10, 200, 10, 0], seed=2)
    unknown, known = first_hit().score([before, after])
    assert unknown.value is None and unknown.error == "The clip up to action 2: It is too dark."
    assert unknown.cost_usd == 0.5 and unknown.finish_step is None
    assert known.value == 1.0 and known.finish_step == 2


def test_what_it_will_ask_is_announced():
    judge = first_hit(every=3, clip_frames=4)
    judge.preflight(10, 9)
    rollout = make_rollout([10] * 9)
    judge.score([rollout])
    inner = judge._judge
    assert isinstance(inner, Brightness)
    assert inner.announced == (10 * 3, 4)  # clips end at 3, 6 and 8
    assert inner.asked == [4, 4, 4]
    judge.close()
    assert inner.closed


def test_clips_are_rollouts():
    known_S = torch.tensor([math.nan] * 4 + [0.0, 0.0, 1.0, 1.0])
    rollout = make_rollout(list(range(9)), outcome_S=known_S, proprio_TP=torch.arange(9.0)[:, None])
    assert clip_ends(8, 3) == [3, 6, 8] and clip_ends(8, 4) == [4, 8] and clip_ends(2, 5) == [2]
    whole, prefix, window, early = clip(rollout, 8), clip(rollout, 5), clip(rollout, 5, frames=3), clip(rollout, 3)
    # What the world knew then, not what it knows now.
    assert (whole.outcome, prefix.outcome, window.outcome, early.outcome) == (1.0, 0.0, 0.0, None)
    for part in (whole, prefix, window, early):
        assert len(part.frames_TVHWC) == len(part.proprio_TP) == 1 + part.horizon == 1 + len(part.outcome_S)
    assert prefix.task is rollout.task
    assert window.view()[:, 0, 0, 0].tolist() == window.proprio_TP[:, 0].tolist() == [3, 4, 5]
    assert torch.equal(window.actions_NLA[:, 0], rollout.actions_NLA.flatten(0, 1)[3:5])
    assert window.task.start is None and window.task.view()[0, 0, 0, 0] == 3
    assert window.task.proprio_TP.tolist() == [[3.0]]


def test_a_clip_shows_every_camera():
    frames_TVHWC = torch.arange(9, dtype=torch.uint8)[:, None, None, None, None].repeat(1, 2, 4, 4, 3)
    frames_TVHWC[:, 1] += 100
    rollout = make_rollout([0] * 9, frames_TVHWC=frames_TVHWC, cameras=("front", "wrist"))
    window = clip(rollout, 5, frames=3)
    assert window.view("wrist")[:, 0, 0, 0].tolist() == [103, 104, 105]
    assert window.task.cameras == ("front", "wrist") and window.task.view("wrist")[0, 0, 0, 0] == 103


class Counting(Brightness):
    """Gives each action of a clip a reward, says when it was first bright, and remembers whom it met."""

    met: Parts | None = None

    def attach(self, parts):
        self.met = parts

    def state_dict(self):
        return {"asked": list(self.asked)}

    def load_state_dict(self, state):
        self.asked = list(state["asked"])

    def score(self, rollouts):
        return [
            replace(reward, step_values_S=torch.arange(1.0, rollout.horizon + 1), finish_step=2)
            for rollout, reward in zip(rollouts, super().score(rollouts), strict=True)
        ]


def test_what_the_judge_says_of_single_actions_has_its_place_in_the_rollout():
    judge = first_hit(clip_frames=3)
    judge._judge = Counting(Brightness.Config())
    hit, missed = judge.score([make_rollout([10, 10, 10, 10, 200, 10, 10, 10, 10]), make_rollout([10] * 9, seed=1)])
    assert hit.step_values_S.tolist() == [0, 0, 1, 2, 0, 0, 0, 0] and hit.finish_step == 4
    assert missed.step_values_S.tolist() == [0, 0, 0, 0, 0, 0, 1, 2] and missed.finish_step is None


def test_shaped_rewards_say_their_potential_at_a_cut_and_end_at_a_hit():
    judge = first_hit()
    judge._judge = build("reward_models", "progress", {"judge": {"name": "brightness"}})
    hit, missed = judge.score([make_rollout([10, 51, 51, 51, 204, 9, 9]), make_rollout([10, 51, 51, 51, 102], seed=1)])
    assert hit.finish_step == 4 and missed.finish_step is None
    torch.testing.assert_close(hit.step_values_S, torch.tensor([0.2, 0.0, 0.0, -0.2 + 1.0, 0.0, 0.0]))
    torch.testing.assert_close(missed.step_values_S, torch.tensor([0.2, 0.0, 0.0, -0.2]))
    assert missed.end_potential == pytest.approx(0.4)


def test_the_judge_meets_the_run_and_keeps_its_state():
    judge, parts = first_hit(), Parts()
    judge._judge = Counting(Brightness.Config())
    judge.attach(parts)
    assert judge._judge.met is parts
    judge.load_state_dict({"asked": [3]})
    assert judge.state_dict() == {"asked": [3]}


def test_scores_are_no_successes():
    class Level(Brightness):
        kind = "score"

        def score(self, rollouts):
            return [Reward(float(rollout.view()[-1, 0, 0, 0])) for rollout in rollouts]

    registries().reward_models.register("level", Level)
    judge = first_hit(reward_model={"name": "level"}, threshold=150.0)
    rewards = judge.score([make_rollout([10, 10, 200, 10, 10]), make_rollout([10, 10, 90, 10, 120], seed=1)])
    assert judge.kind == "score"
    assert [(reward.value, reward.finish_step) for reward in rewards] == [(200.0, 2), (120.0, None)]


def test_slow_judges_answer_later_and_failures_arrive():
    class Slow(Brightness):
        def submit(self, rollouts):
            answer: Future = Future()
            threading.Timer(0.05, lambda: answer.set_result(self.score(rollouts))).start()
            return answer

    class Broken(Brightness):
        def submit(self, rollouts):
            answer: Future = Future()
            answer.set_exception(OSError("gone"))
            return answer

    judge, rollouts = first_hit(), [make_rollout([10, 10, 200]), make_rollout([10, 10, 10], seed=1)]
    judge._judge = Slow(Brightness.Config())
    pending = judge.submit(rollouts)
    assert [reward.value for reward in pending.result(timeout=20)] == [1.0, 0.0]
    judge._judge = Broken(Brightness.Config())
    with pytest.raises(OSError, match="gone"):
        judge.submit(rollouts).result(timeout=20)


def test_it_keeps_the_contract_of_reward_models(models):
    assert check_reward_model(first_hit(), image_size=8)
    args = {"reward_model": {"name": "success-classifier", "args": {"checkpoint": str(models / "judge")}}}
    assert check_reward_model(build("reward_models", "first-hit", args), image_size=32)


def test_a_simulator_finds_the_step_at_which_an_expert_succeeded():
    tasks = build("datasets", "tabletop", {"count": 12, "image_size": 32, "horizon": 16}).tasks()
    rollouts, expected = [], []
    for number, task in enumerate(tasks):
        rollout, step = expert_rollout(task, number)
        rollouts.append(rollout)
        expected.append(step)
    judge = first_hit(every=1, reward_model={"name": "environment"})
    rewards = judge.score(rollouts)
    assert [reward.finish_step for reward in rewards] == expected
    assert [reward.value for reward in rewards] == [float(step is not None) for step in expected]
    assert sum(step is not None and step < 16 for step in expected) >= 3


def expert_rollout(task: Task, number: int) -> tuple[Rollout, int | None]:
    """What an expert does, and after how many actions `info["success"]` is first true."""
    assert task.start is not None
    environment = gymnasium.make(task.start.id, **task.start.args)
    environment.reset(seed=task.start.seed, options=dict(task.start.options))
    plain = environment.unwrapped
    expert = Expert(parse(task.instruction), plain.scene)
    frames, actions, outcomes, first = [task.view()[-1]], [], [], None
    for step in range(1, 17):
        action = np.asarray(expert(plain.state), np.float32)
        observation, _, _, _, info = environment.step(action)
        frames.append(torch.from_numpy(observation["image"]))
        actions.append(torch.from_numpy(action))
        outcomes.append(float(info["success"]))
        if info["success"] and first is None:
            first = step
    generator = torch.Generator().manual_seed(number)
    made = make_rollout([0] * 17, number)
    rollout = replace(
        made,
        task=task,
        frames_TVHWC=one_camera(torch.stack(frames)),
        cameras=task.cameras,
        actions_NLA=torch.stack(actions)[:, None],
        log_prob_NLD=-torch.rand(16, 1, 2, generator=generator),
        outcome_S=torch.tensor(outcomes),
    )
    return rollout, first


@pytest.mark.parametrize("args", [{"every": 0}, {"clip_frames": 1}, {"threshold": 0.0}, {"threshold": 1.5}])
def test_unusable_options_are_refused(args):
    with pytest.raises(ConfigError, match=f"{next(iter(args))} is"):
        first_hit(**args)
