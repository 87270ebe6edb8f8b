"""The judges as the rest of the framework meets them: `gymnast check`, `gymnast train`, the package's files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from judging import MAKERS

from gymnast_conformance.command import check
from gymnast_core.config import RunConfig, load_config
from gymnast_core.errors import ConfigError
from gymnast_core.plugins.compose import build_parts
from gymnast_core.plugins.registry import registries
from gymnast_core.processes import Processes
from gymnast_core.testing import check_reward_model
from gymnast_vlm_reward.loopback import LoopbackServer


@pytest.mark.parametrize("name", MAKERS)
def test_every_judge_keeps_the_contract(name: str, tmp_path: Path) -> None:
    with LoopbackServer() as server:
        judge = MAKERS[name](server, tmp_path)
        verified = check_reward_model(judge, image_size=16)
        judge.close()
    assert "a reward does not depend on the other rollouts" in verified


def test_gymnast_check_runs_against_a_server(tmp_path: Path) -> None:
    with LoopbackServer() as server:
        cache = f"cache={tmp_path}/c.sqlite"
        arguments = ["openai-compatible", f"base_url={server.openai_url}", "model=any", cache, "--image-size", "16"]
        result = CliRunner().invoke(check, arguments, catch_exceptions=False)
    assert "keeps its contract" in result.output and server.log


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "OPENAI_API_KEY is not set"),
        ({"api_key_env": "PATH", "max_usd": 0.01}, r"It would need reward_model.args.max_usd=\d"),
    ],
)
def test_a_run_that_cannot_be_judged_stops_before_any_model_is_loaded(
    args: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.delenv("OPENAI_API_KEY")
    for registry in (registries().policies, registries().world_models):
        monkeypatch.setattr(registry, "build", load)
    config = load_config(RunConfig, "tabletop", ["reward_model.name=gpt-4o"])
    config.reward_model.args.clear()
    config.reward_model.args.update(args | {"cache": str(tmp_path / "c.sqlite")})
    with pytest.raises(ConfigError, match=words):
        build_parts(config, left=100, processes=Processes())


def test_listing_plugins_imports_no_client_library() -> None:
    code = (
        "import sys; from gymnast_core.plugins.registry import registries; names = registries().reward_models.names();"
        "assert {'gpt-4o', 'claude', 'openai-compatible', 'local-vlm', 'ensemble'} <= set(names), names;"
        "print([name for name in ('openai', 'anthropic', 'torch', 'transformers') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
