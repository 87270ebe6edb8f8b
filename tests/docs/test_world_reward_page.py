"""The reward that asks the world model, as `docs/how-to/plugin.md` has it: checked, and trained with."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner

from gymnast_core.cli import cli
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.compose import registries
from gymnast_core.testing.making import make_rollouts, make_tasks
from gymnast_core.testing.stand_ins import Nothing, StillWorld

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "plugin.md").read_text(encoding="utf-8")
SHIPPED = ROOT / "plugins" / "gymnast_tabletop" / "checkpoints"
SMALL = ["loop.iterations=1", "loop.tasks_per_iteration=1", "optimizer.args.group_size=2", "evaluation.tasks=null",
         "check_saved=false", "loop.max_draws=1", "output=run"]  # fmt: skip


@pytest.fixture
def difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's module, installed under the name that the page gives it."""
    (body,) = re.findall(r'^```python title="gymnast-difference/.*?"\n(.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "difference_of_the_page.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    import difference_of_the_page as module

    registries().reward_models.register("difference", module.DifferenceRewardModel)
    yield module
    registries.cache_clear()
    sys.modules.pop("difference_of_the_page")


def test_it_passes_the_check_with_either_world(difference: ModuleType) -> None:
    still = CliRunner().invoke(cli, ["check", "reward-model", "difference"], catch_exceptions=False)
    assert still.exit_code == 0 and "--  not shown: what it makes of a world in which things move" in still.output
    (line,) = re.findall(r"^gymnast (check reward-model difference --world .*)$", PAGE, flags=re.MULTILINE)
    words = [word.replace("runs/RUN/checkpoint", str(SHIPPED / "world_model")) for word in line.split()]
    moving = CliRunner().invoke(cli, [*words, "tasks.count=1"], catch_exceptions=False)
    assert (
        moving.exit_code == 0 and "keeps its contract" in moving.output and "in which things move" not in moving.output
    )


def test_it_rewards_what_the_world_would_not_have_done_by_itself(difference: ModuleType) -> None:
    judge = difference.DifferenceRewardModel(difference.DifferenceRewardModel.Config())
    tasks = make_tasks(2, image_size=32)
    judge.attach(Parts(world_model=StillWorld(Nothing()), tasks=tasks))
    still, finished = (make_rollouts(tasks, course=course) for course in ("still", "finished"))
    apart = [
        float((rollout.frames_TVHWC[-1].float() - rollout.frames_TVHWC[0].float()).abs().mean()) for rollout in finished
    ]
    assert [reward.value for reward in judge.score(still)] == [0.0, 0.0]
    assert [reward.value for reward in judge.score(finished)] == pytest.approx([value / 10 for value in apart])
    assert min(apart) > 1
    assert torch.equal(still[0].frames_TVHWC[0], still[0].frames_TVHWC[-1])


def test_a_policy_is_trained_with_it(difference: ModuleType) -> None:
    done = CliRunner().invoke(cli, ["train", "tabletop", "reward_model=difference", *SMALL], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "levels from doing nothing" in Path("run/report.html").read_text()
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["updates"] > 0 and summary["groups_kept"] == 1
    refused = CliRunner().invoke(cli, ["check", "grpo", "--world", "worldgym"])
    assert "--world is for reward models" in str(refused.exception)
