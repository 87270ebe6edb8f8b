"""The loop on a world whose answer is known."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bandit import LinePolicy, LineWorld, RightReward, line_task, place

from gymnast_core.config import ComponentConfig, LoopConfig, RunConfig
from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.learning import Minibatch
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.runs.snapshot import load_latest_snapshot, save_snapshot
from gymnast_core.seeds import seeded_generator
from gymnast_core.training.judge import RewardsFailing
from gymnast_core.training.loop import ReinforcementLoop
from gymnast_core.training.record import RunRecord
from gymnast_core.training.trainer import build_trainer
from gymnast_core.types import Reward, Rollout
from gymnast_optimizers.grpo import GRPO


class Noting(RunRecord):
    """A record that also keeps the numbers of every iteration."""

    def iteration_done(self, loop: ReinforcementLoop, numbers: dict[str, float]) -> None:
        super().iteration_done(loop, numbers)
        self.__dict__.setdefault("metrics", []).append(dict(numbers))


def run_loop(
    folder: Path,
    *,
    iterations: int = 3,
    fail_every: int = 0,
    grpo: dict[str, Any] | None = None,
    starts=(6, 7, 8),
    judge: RightReward | None = None,
    policy: LinePolicy | None = None,
    **loop: Any,
):
    part = ComponentConfig("unused")
    settings = {"tasks_per_iteration": 4, "horizon": 4, **loop}
    config = RunConfig(part, part, part, part, part, loop=LoopConfig(iterations=iterations, **settings))
    config = replace(config, output=str(folder))
    args = {"group_size": 6, "learning_rate": 0.1, "minibatch_size": 8, "epochs": 1, "accuracy_bounds": [0.01, 0.99]}
    optimizer = GRPO(GRPO.Config(**{**args, **(grpo or {})}))
    tasks = [line_task(i) for i in starts]
    policy = policy or LinePolicy(LinePolicy.Config())
    parts = Parts(policy, LineWorld(), judge or RightReward(fail_every=fail_every), optimizer, tasks, (), config)
    module = ReinforcementLoop(config, parts)
    module.record = Noting(config, parts, folder)
    build_trainer({"accelerator": "cpu"}).fit(module, module.steps)
    hooks = SimpleNamespace(metrics=vars(module.record).get("metrics", []))
    return SimpleNamespace(module=module, hooks=hooks, parts=parts, policy=policy, updates=module.updater.updates)


def test_the_policy_learns_what_is_rewarded(tmp_path: Path) -> None:
    done = run_loop(tmp_path, iterations=12)
    left, right = done.policy.logits.softmax(0).tolist()
    assert right > 0.9 > left
    assert done.hooks.metrics[-1]["imagined_success"] > done.hooks.metrics[0]["imagined_success"]


def test_unscored_rollouts_teach_nothing(tmp_path: Path) -> None:
    done = run_loop(tmp_path, iterations=1, fail_every=2, rescore=0)
    metrics = done.hooks.metrics[0]
    assert metrics["unscored"] == metrics["rollouts"] / 2
    # Success is a mean over the judged half; zeros for the others would halve it.
    judged = run_loop(tmp_path / "all", iterations=1).hooks.metrics[0]
    assert abs(metrics["imagined_success"] - judged["imagined_success"]) < 0.25
    assert done.policy.logits[1] > 0 > done.policy.logits[0]


def test_what_could_not_be_judged_is_asked_again_and_paid_for_twice(tmp_path: Path) -> None:
    once = run_loop(tmp_path / "once", iterations=1, fail_every=2, max_draws=1, rescore=0).hooks.metrics[0]
    twice = run_loop(tmp_path / "twice", iterations=1, fail_every=2, max_draws=1, rescore=1)
    metrics = twice.hooks.metrics[0]
    first, again = twice.parts.reward_model.calls[:2]
    assert again == once["unscored"] / once["rollouts"] * first
    assert metrics["unscored"] == once["unscored"] / 2
    assert metrics["cost_usd"] == 0.25 * sum(twice.parts.reward_model.calls)


def test_incomplete_groups_are_dropped_when_asked(tmp_path: Path) -> None:
    # Two of the six rollouts of every group stay unjudged.
    settings: dict[str, Any] = {"iterations": 1, "fail_every": 3, "rescore": 0}
    assert run_loop(tmp_path / "kept", **settings).updates > 0
    dropped = run_loop(tmp_path / "dropped", **settings, drop_incomplete_groups=True)
    assert dropped.hooks.metrics[0]["groups_kept"] == 0
    assert dropped.updates == 0


def test_a_slow_judge_works_while_the_next_batch_is_imagined(tmp_path: Path) -> None:
    """Each batch waits, in its judge's thread, until a later batch has been handed over."""

    class Slow(RightReward):
        def __init__(self) -> None:
            super().__init__()
            self.handed_over: list[threading.Event] = []
            self.pool = ThreadPoolExecutor()

        def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Reward]]:
            for event in self.handed_over:
                event.set()
            self.handed_over.append(threading.Event())
            last = len(self.handed_over) == 24 // 6
            return self.pool.submit(self._wait, rollouts, None if last else self.handed_over[-1])

        def _wait(self, rollouts: Sequence[Rollout], next_one: threading.Event | None) -> list[Reward]:
            if next_one is not None and not next_one.wait(timeout=20):
                return [Reward(None, error="nobody imagined anything meanwhile")] * len(rollouts)
            return self.score(rollouts)

    settings: dict[str, Any] = {"iterations": 1, "imagine_batch_size": 6, "max_draws": 1, "rescore": 0}
    slow = run_loop(tmp_path / "slow", judge=Slow(), **settings)
    assert slow.hooks.metrics[0]["unscored"] == 0
    assert torch.equal(slow.policy.logits, run_loop(tmp_path / "quick", **settings).policy.logits)


def test_a_failing_judge_stops_the_run_with_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(RewardsFailing, match=r"could not be judged.*the judge is asleep"):
        run_loop(tmp_path, fail_every=1)


def test_surplus_groups_wait_for_the_next_iteration(tmp_path: Path) -> None:
    done = run_loop(tmp_path, iterations=2, groups_per_update=1, tasks_per_iteration=6)
    first, second = done.hooks.metrics
    assert first["groups_kept"] > 1
    assert first["groups_waiting"] == first["groups_kept"] - 1
    # The second iteration is served from what waited: nothing is imagined or paid for again.
    assert second["rollouts"] == 0
    assert second["cost_usd"] == 0
    assert second["groups_waiting"] == first["groups_waiting"] - 1


def test_draws_go_on_until_the_batch_is_full(tmp_path: Path) -> None:
    done = run_loop(tmp_path, iterations=1, tasks_per_iteration=1, groups_per_update=4, max_draws=20)
    metrics = done.hooks.metrics[0]
    assert metrics["groups_kept"] == 4
    assert metrics["rollouts"] == 6 * (metrics["groups_kept"] + metrics["groups_dropped"])


def test_groups_without_variance_change_nothing(tmp_path: Path) -> None:
    # From the right edge nothing can move right: every rollout fails.
    done = run_loop(tmp_path, iterations=1, starts=(15,))
    assert done.hooks.metrics[0]["groups_dropped"] == 4 * 4
    assert done.updates == 0
    assert torch.equal(done.policy.logits, torch.zeros(2))


def test_micro_batches_do_not_change_the_update(tmp_path: Path) -> None:
    whole = run_loop(tmp_path / "whole", iterations=2)
    parts = run_loop(tmp_path / "parts", iterations=2, micro_batch_size=3)
    torch.testing.assert_close(whole.policy.logits, parts.policy.logits)


def test_the_kl_term_holds_the_policy_back(tmp_path: Path) -> None:
    free = run_loop(tmp_path / "free", iterations=8)
    held = run_loop(tmp_path / "held", iterations=8, grpo={"kl_coefficient": 5.0})
    assert held.policy.logits.diff().abs() < free.policy.logits.diff().abs()


def test_world_and_reward_are_in_no_checkpoint(tmp_path: Path) -> None:
    done = run_loop(tmp_path, iterations=1)
    assert {name for name, _ in done.module.named_parameters()} == {"policy.logits"}
    state = load_latest_snapshot(tmp_path / "snapshots")
    assert state is not None
    assert set(state["policy"]) == {"logits"}


def test_imagine_is_repeatable_and_in_order() -> None:
    policy, world = LinePolicy(LinePolicy.Config()), LineWorld()
    tasks = [line_task(position) for position in (3, 9, 5)]
    runs = [
        imagine(policy, world, tasks, horizon=6, temperature=1.0, generator=seeded_generator(1, "x"), batch_size=2)
        for _ in range(2)
    ]
    assert [rollout.task.id for rollout in runs[0]] == [task.id for task in tasks]
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first.frames_TVHWC, second.frames_TVHWC)
        assert first.frames_TVHWC.shape == (7, 1, 1, 16, 3)
        assert first.actions_NLA.shape == (3, 2, 1)
        assert first.horizon == 6


def imagine_one(horizon: int) -> Rollout:
    policy, world, generator = LinePolicy(LinePolicy.Config()), LineWorld(), seeded_generator(0)
    return imagine(policy, world, [line_task(3)], horizon=horizon, temperature=1.0, generator=generator)[0]


def test_a_horizon_that_is_no_multiple_of_the_chunk_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"horizon of 5 .* chunk length 2; set loop.horizon=4"):
        imagine_one(horizon=5)


class FirstMove(RightReward):
    """1 if the first action went right, and that is when it was done."""

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        moved = [place(rollout.view()[1]) > place(rollout.view()[0]) for rollout in rollouts]
        return [Reward(float(right), finish_step=1 if right else None) for right in moved]


def test_what_comes_after_the_success_that_a_judge_saw_is_not_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, set[int]] = {True: set(), False: set()}
    real = GRPO.loss

    def loss(self: GRPO, minibatch: Minibatch) -> Any:
        for advantage, mask_S in zip(minibatch.advantages_BS[:, 0].tolist(), minibatch.mask_BS, strict=True):
            assert mask_S.tolist() == sorted(mask_S.tolist(), reverse=True)
            seen[advantage > 0].add(int(mask_S.sum()))
        return real(self, minibatch)

    monkeypatch.setattr(GRPO, "loss", loss)
    done = run_loop(tmp_path, iterations=3, judge=FirstMove(), groups_per_update=2)
    assert seen == {True: {1}, False: {4}}
    # Groups that wait for a later iteration keep what the judge said.
    waiting = done.module.collector.waiting[0].rewards
    assert {(reward.value, reward.finish_step) for reward in waiting} == {(1.0, 1), (0.0, None)}


def test_only_the_newest_snapshots_are_kept_and_damage_is_passed_over(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_snapshot(tmp_path, step, {"value": torch.tensor(float(step)), "by_index": {0: "zero"}, "none": None})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000002", "step-000000003"]
    state = load_latest_snapshot(tmp_path)
    assert state == {"value": torch.tensor(3.0), "by_index": {0: "zero"}, "none": None}
    weights = tmp_path / "step-000000003" / "state.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2])
    before = load_latest_snapshot(tmp_path)
    assert before is not None and before["value"] == 2.0
    (tmp_path / "step-000000002" / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="step-000000003 is damaged"):
        load_latest_snapshot(tmp_path)


def test_streams_of_different_labels_differ() -> None:
    def draw(*labels: str | int) -> float:
        return torch.rand(1, generator=seeded_generator(0, *labels)).item()

    assert draw("imagine", 1) == draw("imagine", 1)
    assert len({draw("imagine", 1), draw("imagine", 2), draw("update", 1), draw("imagine", 1, 0)}) == 4
