"""Policies of this package in the commands that users type."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from oft_cases import seeing
from safetensors import safe_open
from safetensors.torch import load_file

from gymnast_core import cli
from gymnast_core.plugins.compose import registries
from gymnast_core.rollouts.imagine import imagine
from gymnast_openvla_oft.adapters import Factors, read_adapter
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_tabletop.record import Recording, record

TOWER = "{patch_size: 16, width: 16, depth: 2, heads: 2}"
SIZES = (
    f"policy.args.architecture={{image_size: 32, dino: {TOWER}, siglip: {TOWER}, llm_width: 32, llm_layers: 1, "
    "llm_heads: 2, llm_intermediate: 32, action_low: [-0.02, -0.02], action_high: [0.02, 0.02]}"
)
FIT = (
    "episodes=tabletop-episodes",
    "fit.steps=2",
    "fit.batch_size=2",
    "fit.warmup_steps=0",
    "trainer={accelerator: cpu}",
)
SHIPPED_TOKENS = [443, 571, 466, 595, 480, 572, 508, 601]
SHIPPED_LOG_PROB = -34.7711


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings") / "play"
    record(Recording(episodes=3, actions=6, image_size=32), folder)
    return folder


@pytest.fixture
def gymnast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch)


class CommandLine:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def __call__(self, *arguments: str) -> int:
        self.monkeypatch.setattr(sys, "argv", ["gymnast", *arguments])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0


def fit(gymnast: CommandLine, play: Path, *arguments: str) -> dict[str, float]:
    data = (f"episodes.args.path={play}", "validation=tabletop-episodes", f"validation.args.path={play}")
    assert gymnast("fit", *FIT, *data, SIZES, "output=run", *arguments) == 0
    return json.loads(Path("run/summary.json").read_text())["validation"]


def test_fit_a_regression_head_then_act_but_not_train(
    gymnast: CommandLine, play: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quality = fit(gymnast, play, "policy=openvla-oft", "policy.args.chunk_length=2", "policy.args.action_head=l1")
    assert set(quality) == {"loss", "action_l1"} and quality["loss"] == quality["action_l1"]
    checkpoint = Path("run/checkpoint")
    assert (checkpoint / "action_head--latest_checkpoint.pt").is_file()
    policy = OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(checkpoint)))
    world = registries().world_models.build("gymnasium", {}, key="world_model")
    tasks = registries().datasets.build("tabletop", {"count": 2, "horizon": 4}, key="tasks").tasks()
    rollouts = imagine(policy, world, tasks, horizon=4, temperature=0.0, generator=torch.Generator())
    world.close()
    assert all(torch.isfinite(rollout.actions_NLA).all() for rollout in rollouts)
    assert all(rollout.tokens_NLD is None and rollout.log_prob_NLD.isnan().all() for rollout in rollouts)
    capsys.readouterr()
    code = gymnast(
        "train", "world_model=gymnasium", "reward_model=environment", "optimizer=grpo", "policy=openvla-oft",
        f"policy.args.checkpoint={checkpoint}", "tasks=tabletop", "tasks.args.count=2", "tasks.args.horizon=4",
        "loop.iterations=1", "loop.horizon=4", "trainer={accelerator: cpu}", "output=rl",
    )  # fmt: skip
    error = capsys.readouterr().err
    assert code == 2 and "Traceback" not in error
    assert "cannot be sampled from" in error and "never supervised" in error


def test_fit_plain_openvla(gymnast: CommandLine, play: Path) -> None:
    quality = fit(gymnast, play, "policy=openvla")
    assert {"loss", "token_loss", "token_accuracy", "action_l1"} == set(quality)
    with safe_open("run/checkpoint/model.safetensors", "pt") as weights:
        assert "language_model.lm_head.weight" in weights.keys()  # noqa: SIM118


def test_lora_is_fitted_then_goes_on_learning_by_reinforcement(gymnast: CommandLine, play: Path) -> None:
    """A base, an adapter from demonstrations, and the same adapter after two updates with frozen vision."""
    fit(gymnast, play, "policy=openvla-oft", "policy.args.chunk_length=2")
    Path("run").rename("base")
    base, lora = "base/checkpoint", "policy.args.train={lora_rank: 2, checkpointing: true, vision: frozen}"
    checkpoint = ("policy=openvla-oft", f"policy.args.checkpoint={base}", lora)
    data = (f"episodes.args.path={play}", "validation=null", "output=lora", "fit.learning_rate=0.01")
    assert gymnast("fit", *FIT, *data, *checkpoint) == 0
    fitted = adapter_of("lora/checkpoint")
    code = gymnast(
        "train", "world_model=gymnasium", "reward_model.name=random", "optimizer.name=grpo", "optimizer.args.epochs=2",
        "optimizer.args.group_size=4", "optimizer.args.accuracy_bounds=[0,1]", "optimizer.args.learning_rate=0.01",
        "policy=openvla-oft", "policy.args.checkpoint=lora/checkpoint", f"policy.args.base={base}", lora,
        "tasks=tabletop", "tasks.args={count: 2, horizon: 4, image_size: 32}", "loop.iterations=1", "loop.horizon=4",
        "loop.tasks_per_iteration=2", "trainer={accelerator: cpu}", "output=rl",
    )  # fmt: skip
    assert code == 0 and json.loads(Path("rl/summary.json").read_text())["updates"] == 2
    learned = adapter_of("rl/policy")
    assert learned.keys() == fitted.keys() and not any("vision" in name for name in learned)
    # One optimizer of factors alone, stepped from where the fit ended.
    assert all(0 < (learned[name].a_RI - x.a_RI).abs().max() < 0.05 for name, x in fitted.items())
    plain, merged = (load_file(f"{folder}/model.safetensors") for folder in (base, "rl/policy"))
    assert plain.keys() == merged.keys()
    for name, x in merged.items():
        delta = learned[name.removesuffix(".weight")].delta() if name.removesuffix(".weight") in learned else 0
        torch.testing.assert_close(x, plain[name] + delta, atol=1e-6, rtol=0)


def adapter_of(checkpoint: str) -> dict[str, Factors]:
    return read_adapter(Path(checkpoint) / "lora_adapter")


def test_the_shipped_policy_still_acts_as_it_did() -> None:
    """Tokens and log-probabilities of the tabletop's checkpoint, as the version that trained it gave them."""
    folder = Path(__file__).parents[2] / "plugins" / "gymnast_tabletop" / "checkpoints" / "policy"
    policy = OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(folder), golden="error"))
    rows, columns = torch.arange(64)[:, None, None], torch.arange(64)[None, :, None]
    image = ((rows * torch.tensor([3, 1, 2]) + columns * torch.tensor([1, 3, 2])) % 256).to(torch.uint8)
    seen = seeing(image[None, None], ("push the red block to the left",))
    chunk = policy.act(seen, temperature=0.0)
    assert chunk.tokens_BLD.flatten().tolist() == SHIPPED_TOKENS
    torch.testing.assert_close(chunk.log_prob_BLD.sum(), torch.tensor(SHIPPED_LOG_PROB), atol=1e-3, rtol=0)
