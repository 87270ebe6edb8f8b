"""`docs/how-to/robot.md`, command by command in its order, on made-up recordings and in small."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import recorded
from click.testing import CliRunner

from gymnast_core.cli import cli

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "robot.md").read_text(encoding="utf-8")
TOWER = "{patch_size: 16, width: 16, depth: 2, heads: 2}"
FIT = "fit.steps=2 fit.batch_size=2 fit.warmup_steps=0 trainer.accelerator=cpu"
ACT = "loop.iterations=1 loop.tasks_per_iteration=2 loop.horizon=4 optimizer.args.group_size=2 trainer.accelerator=cpu"
SMALL = {
    "fit robot-world.yaml": f"{FIT} world_model.args.dim=32 world_model.args.layers=1 world_model.args.heads=2",
    "fit robot-policy.yaml": f"{FIT} policy.args.architecture.dino='{TOWER}' policy.args.architecture.siglip='{TOWER}' "
    "policy.args.architecture.llm_width=32 policy.args.architecture.llm_layers=1 policy.args.architecture.llm_heads=2 "
    "policy.args.architecture.llm_intermediate=32 policy.args.architecture.n_action_bins=16",
    "fit robot-judge.yaml": f"{FIT} reward_model.args.width=8 reward_model.args.hidden=8",
    "train robot.yaml": ACT,
    "evaluate robot-evaluate.yaml": "reward_model.name=random reward_model.args={} horizon=4 videos=0 batch_size=4",
}
"""What makes a command small: networks, steps, and the judge that would be paid."""
INSTEAD = {
    "hooks.judging.audit.name=claude hooks.judging.audit.args.max_usd=5": "hooks.judging.audit.name=random",
}
"""What stands in for what needs a key."""


def commands() -> list[str]:
    found = [
        line for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.M | re.S) for line in block.splitlines()
    ]
    return [line.removeprefix("gymnast ") for line in found if line.startswith("gymnast ")]


def test_the_way_from_recordings_to_a_measured_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file, body in re.findall(r"`([\w-]+\.yaml)`:\n\n```yaml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL):
        Path(file).write_text(body)
    recorded.write(Path("my-robot"))
    Path("my-demonstrations").symlink_to("my-robot")
    for line in commands():
        words = line
        for what, other in INSTEAD.items():
            words = words.replace(what, other)
        small = next((more for begin, more in SMALL.items() if line.startswith(begin)), "")
        done = CliRunner().invoke(cli, [*shlex.split(words), *shlex.split(small)])
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    assert len(commands()) == 9 and Path("runs/robot/policy/model.safetensors").exists()
    (evaluated,) = Path("runs").glob("evaluate-*")
    assert set(json.loads((evaluated / "summary.json").read_text())["results"]) == {"before", "after"}
