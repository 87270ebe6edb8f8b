"""Every command of README, the quickstart and the how-to pages is executed here, in small, or has a reason why not."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from gymnast_core.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "quickstart.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
SMALL = (
    "loop.iterations=1 loop.tasks_per_iteration=2 optimizer.args.group_size=4 evaluation.tasks=null check_saved=false"
)
EXECUTED = {
    r"train tabletop (reward_model|world_model)=(environment|gymnasium)": SMALL,
    r"train tabletop optimizer\.args\.clip_high=0\.2": SMALL,
    r'train tabletop "optimizer=\{name: reinforce': SMALL + " optimizer.args.minibatch_size=4",
    r"train tabletop hooks\.judging\.audit\.name=environment": SMALL,
    r"plan tabletop": "",
    r"(plugins|presets|show \S+)$": "",
    r"new \S+ my-\S+$": "",
}
"""Commands, and what makes them small."""
REASONS = {
    r".* --resume ": "needs a run that was stopped: tests/run/test_resume.py, tests/fit/test_fit_resume.py",
    r".*(reward_model=(gpt-4o|claude)|reward_model\.name=gpt-4o)": "needs a key and money",
    r".*(/models/|checkpoint=DIR|bridge_v2_ckpt|lpips\.safetensors)": "needs a checkpoint that is downloaded",
    r"train .*engine=ray": "needs a Ray cluster, all but one: tests/ray_engine/test_ray_engine.py",
    r"bench .*executor=ray": "needs a Ray cluster: tests/bench/test_bench_ray.py",
    r".*hooks\.(wandb|mlflow)\.": "needs another library: tests/trackers",
    r"convert .*(path=bridge|path=my-robot|bridge-lerobot)": "needs recordings: tests/episodes/test_convert_command.py",
    r"(fit|imagine) world_model\.name=worldgym .*my-robot": "needs recordings: tests/fit, tests/imagine",
    r"fit fit-tabletop-world-model": "needs recordings, and is long: tests/fit/test_fit_training.py",
    r"(collect|fit|evaluate) dots-": "executed as the page is read by tests/collect/test_simulator_page.py",
    r"check dataset environment-tasks": "executed as the page is read by tests/collect/test_simulator_page.py",
    r"train tabletop$": "minutes: the demo; with other parts it is executed in small",
    r"train tabletop optimizer=iter-sft": "needs demonstrations: tests/optimizers/test_in_the_loop.py",
    r"(fit|train|evaluate) robot\S*\.yaml": "needs a robot's recordings: read by tests/docs/test_docs_pages.py",
    r"(convert replayed-episodes|check dataset lerobot|imagine .*my-robot)": "needs recordings: tests/episodes",
    r"serve ": "needs the package gymnast-remote: executed by its own tests",
    r"evaluate runs/RUN": "needs a run: tests/evaluation/test_evaluate_run.py",
    r"(check|train).*my-(judge|policy)": "needs the new plugin installed: tests/third_party/test_first_hour.py",
    r"bench ": "hours: tests/bench",
    r"(gate|dyna|adapt|probe|collect|judge) ": "minutes: in small in the tests of the folder of its name",
    r"imagine imagine-tabletop": "tests/imagine/test_imagine_videos.py; driving needs a person",
    r"evaluate evaluate-tabletop": "needs a trained policy: tests/evaluation/test_evaluate_command.py",
    r"view ": "serves until it is stopped: tests/browser/test_view.py",
    r"rescore ": "needs a run: tests/judging/test_stored_rollouts.py",
    r"train tabletop-(ppo|dapo)": "minutes: tests/optimizers/test_in_the_loop.py",
    r"train tabletop loop\.iterations=30": "minutes: tests/run/test_precision.py",
    r"train tabletop hooks\.gate": "minutes: tests/gate/test_gate_training.py",
    r"train tabletop hooks\.judging\.canary": "minutes: tests/judging/test_tabletop_clips.py",
    r"train tabletop trainer\.devices=2": "needs processes of its own: tests/run/test_processes.py",
    r"plugins --load": "imports what this machine has broken, too: tests/core/test_core_cli.py",
}
"""Commands that are not executed here, and why."""


def commands() -> list[str]:
    """Every line that begins with `gymnast`, of shell blocks and of indented ones, comments cut off."""
    lines = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```(?:sh|bash)[^\n]*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
        blocks += re.findall(r"((?:^    .*\n)+)", text, flags=re.MULTILINE) if page.name == "README.md" else []
        lines += [line.strip() for block in blocks for line in block.splitlines()]
    found = [re.sub(r"\s+#.*", "", line.removeprefix("gymnast ")) for line in lines if line.startswith("gymnast ")]
    return sorted(set(found))


def matching(line: str, table: dict[str, str]) -> list[str]:
    return [pattern for pattern in table if re.match(pattern, line)]


RUN = [line for line in commands() if matching(line, EXECUTED)]


def test_every_command_is_executed_or_has_a_reason() -> None:
    found = commands()
    assert len(found) > 50
    neither = [line for line in found if not matching(line, EXECUTED) and not matching(line, REASONS)]
    assert neither == [], "Add them to EXECUTED, with what makes them small, or to REASONS."
    unused = [
        pattern for table in (EXECUTED, REASONS) for pattern in table if not any(re.match(pattern, c) for c in found)
    ]
    assert unused == []


def test_a_reason_that_names_a_test_is_right() -> None:
    named = [path for reason in REASONS.values() for path in re.findall(r"tests/[\w/.]+", reason)]
    assert [path for path in named if not (ROOT / path.rstrip(".")).exists()] == []


@pytest.mark.parametrize("line", RUN)
def test_it_does_what_it_says(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = EXECUTED[matching(line, EXECUTED)[0]]
    done = CliRunner().invoke(cli, [*shlex.split(line), *shlex.split(small)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    if line.startswith("train "):
        assert list(tmp_path.glob("runs/*/summary.json")), done.output
