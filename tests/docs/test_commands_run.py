"""Every command of README, the quickstart and the how-to pages is executed here, in small, or has a reason why not."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import recorded
from click.testing import CliRunner

from gymnast_core.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "quickstart.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
SMALL = (
    "loop.iterations=1 loop.tasks_per_iteration=2 loop.horizon=8 optimizer.args.group_size=4 evaluation.tasks=null "
    "check_saved=false"
)
TINY = SMALL + " optimizer.args.minibatch_size=4 loop.max_draws=1 loop.groups_per_update=null"
EXECUTED = {
    r"train tabletop (reward_model|world_model)=(environment|gymnasium)": SMALL,
    r"train tabletop optimizer\.args\.clip_high=0\.2": SMALL,
    r'train tabletop "optimizer=\{name: (reinforce|rloo|dr-grpo)': SMALL + " optimizer.args.minibatch_size=4",
    r"train tabletop hooks\.judging\.audit\.name=environment": SMALL,
    r"train tabletop loop\.iterations=30 seed=1": SMALL,
    r"train tabletop-(ppo|dapo)": TINY,
    r"train tabletop hooks\.judging\.canary": TINY + " hooks.judging.canary.args.count=4",
    r"train tabletop hooks\.gate": TINY + " hooks.gate.rollouts=2",
    r"train --resume runs/": "loop.iterations=2",
    r"rescore runs/RUN --all reward_model=environment": "",
    r"evaluate runs/RUN": "tasks.args.count=2 horizon=4 videos=0",
    r"evaluate evaluate-tabletop": "tasks.args.count=2 horizon=4 videos=0",
    r"imagine imagine-tabletop$": "sweep.frames=4",
    r"judge judge-tabletop": "episodes=4 videos=0",
    r"probe probe-tabletop": "tasks.args.count=2 horizon=4 videos=0",
    r"adapt adapt-tabletop$": "loop.iterations=1 loop.tasks_per_iteration=2 loop.horizon=4 optimizer.args.group_size=2 "
    "optimizer.args.minibatch_size=4 optimizer.args.epochs=1 retained=2 trials=2 videos=0",
    r"check dataset lerobot path=my-robot": "",
    r"convert (lerobot path=my-robot|worldgym-episodes path=bridge)": "",
    r"plan tabletop --(gpus|hardware)": "",
    r"(plugins|presets|show \S+)$": "",
    r"new \S+ my-\S+$": "",
}
"""Commands, and what makes them small."""
ROBOT = "executed, with what comes before it, as the page is read by tests/docs/test_robot_page.py"
REASONS = {
    r"(fit|dyna) --resume ": "needs a run that was stopped: tests/fit/test_fit_resume.py, tests/dyna/test_dyna.py",
    r".*(reward_model=(gpt-4o|claude)|reward_model\.name=gpt-4o)": "needs a key and money",
    r".*localhost:8000": "needs a server: tests/vlm_reward/test_vlm_contract.py, tests/judging/test_judge_command.py",
    r".*(/models/|checkpoint=DIR|bridge_v2_ckpt|lpips\.safetensors)": "needs a checkpoint that is downloaded",
    r"train .*engine=ray": "needs a Ray cluster, all but one: tests/ray_engine/test_ray_engine.py",
    r"bench .*executor=ray": "needs a Ray cluster: tests/bench/test_bench_ray.py",
    r".*hooks\.(wandb|mlflow)\.": "needs another library: tests/trackers/test_trackers.py",
    r"(fit|train|evaluate) robot\S*\.yaml": ROBOT,
    r"convert replayed-episodes": ROBOT,
    r"imagine .*checkpoint=runs/robot-world/checkpoint": ROBOT,
    r"judge reward_model=success-classifier": ROBOT,
    r"imagine .*checkpoint=runs/RUN/checkpoint": "needs a fitted world model: the same line of robot.md is executed by "
    "tests/docs/test_robot_page.py",
    r"fit world_model\.name=worldgym .*my-robot": "as fit robot-world.yaml: tests/docs/test_robot_page.py",
    r"fit fit-tabletop-world-model": "needs two processes, and recordings: tests/fit/test_fit_processes.py",
    r"(collect|fit|evaluate) dots-": "executed as the page is read by tests/collect/test_simulator_page.py",
    r"check dataset environment-tasks": "executed as the page is read by tests/collect/test_simulator_page.py",
    r"(check reward-model|train tabletop reward_model=)\s*difference": "needs the page's plugin: executed by "
    "tests/docs/test_world_reward_page.py",
    r'train tabletop "optimizer=\{name: iter-sft': "needs demonstrations: tests/optimizers/test_in_the_loop.py",
    r"serve ": "needs the package gymnast-remote: contrib/gymnast-remote/tests/test_serve_clients.py",
    r"(gate|train) tabletop world_model=my-world": "needs the new plugin: tests/third_party/test_first_hour.py",
    r"check (policy my-policy|reward-model my-judge|world-model my-world)": "needs the new plugin installed: "
    "tests/third_party/test_first_hour.py",
    r"bench ": "processes of their own, for hours: in small in tests/bench/test_bench_matrix.py",
    r"gate tabletop": "hundreds of episodes before it decides: in small in tests/gate/test_gate_command.py",
    r"dyna dyna-tabletop": "collects, fits and trains twice: in small in tests/dyna/test_dyna.py",
    r"adapt adapt-tabletop target=null": "needs a photograph: in small in tests/adapt/test_adapt.py",
    r"imagine imagine-tabletop actions=keyboard": "needs a person at a browser: tests/imagine/test_imagine_server.py",
    r"view ": "serves until it is stopped: tests/browser/test_view.py",
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
    lines = [part for line in lines for part in re.sub(r"\s+#.*", "", line).split(" && ")]
    found = [line.removeprefix("gymnast ") for line in lines if line.startswith("gymnast ")]
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
    named = [path for reason in REASONS.values() for path in re.findall(r"(?:contrib/[\w-]+/)?tests/[\w/.]+", reason)]
    assert [path for path in named if not (ROOT / path.rstrip(".")).exists()] == []


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages begin with: a run, the recordings of a robot in LeRobot's format, and some in WorldGym's."""
    folder = tmp_path_factory.mktemp("prepared")
    recorded.write(folder / "my-robot")
    words = [
        "convert",
        "lerobot",
        f"path={folder}/my-robot",
        "--to",
        "worldgym",
        "--robot",
        "bridge",
        folder / "bridge",
    ]
    for line in (["train", "tabletop", *shlex.split(SMALL), f"output={folder}/run"], words):
        done = CliRunner().invoke(cli, [str(word) for word in line], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize("line", RUN)
def test_it_does_what_it_says(line: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for run in re.findall(r"runs/[\w-]+", line):
        shutil.copytree(prepared / "run", tmp_path / run)
    for name in ("my-robot", "bridge"):
        (tmp_path / name).symlink_to(prepared / name)
    small = EXECUTED[matching(line, EXECUTED)[0]]
    done = CliRunner().invoke(cli, [*shlex.split(line), *shlex.split(small)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    if line.startswith("train "):
        assert list(tmp_path.glob("runs/*/summary.json")), done.output
