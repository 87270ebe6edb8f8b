"""benchmarks/paper_wovr.py of the repository: every arm can be built, and all have one budget. Nothing is trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from gymnast_bench.config import BenchConfig
from gymnast_bench.matrix import cells_of, run_config
from gymnast_collect.config import CollectConfig
from gymnast_core.config import RunConfig, load_config
from gymnast_core.config.typed import typed
from gymnast_core.plugins.compose import registries

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
if not BENCHMARKS.exists():
    pytest.skip("the repository's benchmarks are not here", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

import paper_wovr  # noqa: E402


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], RunConfig]:
    options = paper_wovr.parse(["--output", str(tmp_path_factory.mktemp("out"))])
    matrix = {key: value for key, value in paper_wovr.matrix([1, 2], options).items() if key != "kind"}
    return {(cell.labels["arm"], cell.seed): run_config(cell) for cell in cells_of(typed(BenchConfig, matrix))}


def test_every_arm_can_be_built(configs: dict[tuple[str, int], RunConfig]):
    known = registries()
    names = {arm for arm, _ in configs}
    assert len(configs) == 2 * 5
    assert {arm for claim in paper_wovr.CLAIMS for arm in (claim.better, claim.worse)} == {*names, "sft"}
    for config in configs.values():
        known.datasets.build(config.tasks.name, config.tasks.args)
        known.world_models.build(config.world_model.name, config.world_model.args)
        known.reward_models.build(config.reward_model.name, config.reward_model.args)
        known.optimizers.build(config.optimizer.name, config.optimizer.args)


def test_arms_differ_in_what_they_are_called_after_and_in_nothing_else(configs: dict[tuple[str, int], RunConfig]):
    plain = configs["plain", 1]
    parts = ("tasks", "world_model", "reward_model", "optimizer")
    usual = {key: getattr(plain, key).name for key in parts}
    others = {
        "+ keyframes": {"tasks": "keyframe-tasks"},
        "+ masking": {"reward_model": "first-hit", "optimizer": "masked-grpo"},
        "+ co-evolution": {"world_model": "co-evolving"},
    }
    others["all three"] = {key: name for changes in others.values() for key, name in changes.items()}
    for arm, changes in others.items():
        config = configs[arm, 1]
        assert {key: getattr(config, key).name for key in parts} == {**usual, **changes}
        # One budget of imagined frames, from one policy.
        assert config.loop == plain.loop and config.policy == plain.policy
        assert config.optimizer.args == plain.optimizer.args
        # What is wrapped is what the plain arm uses; first-frame tasks are the same.
        wrapped: Any = {
            "tasks": config.tasks.args.get("first"),
            "world_model": config.world_model.args.get("world_model"),
            "reward_model": config.reward_model.args.get("reward_model"),
        }
        for key, name in changes.items():
            if key in wrapped:
                assert wrapped[key]["name"] == usual[key], name
                assert wrapped[key]["args"] == getattr(plain, key).args, name
    assert configs["plain", 2].tasks.args["first"] >= plain.tasks.args["first"] + plain.tasks.args["count"]


def test_co_evolution_comes_halfway(configs: dict[tuple[str, int], RunConfig]):
    args = configs["+ co-evolution", 1].world_model.args
    assert args["at"] == [configs["+ co-evolution", 1].loop.iterations // 2] and args["judge"]["replayed"]


def test_the_recording_is_of_the_supervised_policy_on_starts_of_its_own(tmp_path: Path):
    options = paper_wovr.parse(["--output", str(tmp_path)])
    command = paper_wovr.record(3, options)
    assert command[0] == "collect"
    config = load_config(CollectConfig, command[1])
    assert config.actor is not None and config.actor.policy == paper_wovr.shipped(options)
    assert config.environments[0].count == options.recorded and config.output == str(tmp_path / "recording-3")
    (tmp_path / "recording-3").mkdir()
    (tmp_path / "recording-3/config.yaml").touch()
    assert paper_wovr.record(3, options) == ["collect", "--resume", str(tmp_path / "recording-3")]


def test_from_commands_to_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With commands that do nothing but leave what the real ones leave."""
    asked: list[list[str]] = []

    def bench(*arguments: str, log: Path) -> None:
        asked.append(list(arguments))
        matrix = yaml.safe_load(Path(arguments[1]).read_text())
        folder = Path(matrix["output"])
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").touch()
        rows = [
            {"labels": {"arm": arm}, "seed": seed, "cell": f"{arm}-{seed}", "status": "done"}
            for arm in matrix["axes"]["arm"] for seed in matrix["seeds"]
        ]  # fmt: skip
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for number, row in enumerate(rows):
            run = folder / "cells" / row["cell"] / "run"
            run.mkdir(parents=True, exist_ok=True)
            (run / "summary.json").write_text(json.dumps({"updates": number}))

    def measure(policies: dict[str, Path], tasks: dict[str, Any], seed: int, folder: Path, overrides: list[str]):
        assert tasks["split"] == "reporting" and policies["plain"].name == "policy"
        assert f"plain-{seed}" in str(policies["plain"])
        return {arm: np.array([1.0, float(arm == "all three"), 0.0, float(arm != "sft")]) for arm in policies}

    recorded: list[list[str]] = []
    monkeypatch.setattr(paper_wovr, "gymnast", bench)
    monkeypatch.setattr(paper_wovr, "gymnast_at_once", lambda commands, jobs: recorded.extend(c for c, _ in commands))
    monkeypatch.setattr(paper_wovr, "measure", measure)
    arguments = ["--seeds", "2", "--output", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    paper_wovr.main(arguments)
    data = json.loads((tmp_path / "results/paper_wovr.json").read_text())
    assert data["rates"]["sft"] == [0.25, 0.25] and data["rates"]["all three"] == [0.75, 0.75]
    assert list(data["rates"]) == ["sft", "plain", "+ keyframes", "+ masking", "+ co-evolution", "all three"]
    assert len(data["claims"]) == len(paper_wovr.CLAIMS) and len(recorded) == 2
    assert data["steps"]["plain"] == [0, 1] and data["steps"]["all three"] == [8, 9]
    assert "plain 0; + keyframes 2;" in (tmp_path / "results/paper_wovr.md").read_text()
    paper_wovr.main(arguments)
    assert "--resume" not in asked[0] and "--resume" in asked[1]
    with pytest.raises(SystemExit, match="iterations"):
        paper_wovr.main([*arguments, "--iterations", "3"])


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    paper_wovr.check_installed()
    monkeypatch.setattr(type(registries().optimizers), "names", lambda self: ["grpo"])
    with pytest.raises(SystemExit, match=r"(?s)masked-grpo.*pip install -e .*contrib/gymnast-wovr"):
        paper_wovr.check_installed()
