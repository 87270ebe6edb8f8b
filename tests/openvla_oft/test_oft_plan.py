"""The memory plan: exact where it can be, close where it cannot, and what it advises fits."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oft_cases import observation, small_config
from test_oft_lora import config_7b
from torch import Tensor

from gymnast_core import cli
from gymnast_core.config import RunConfig, load_config
from gymnast_openvla_oft.dry_run import (
    TYPICAL_PROMPT,
    Pass,
    forward_flops,
    kept,
    kept_by_layers,
    shaped_model,
)
from gymnast_openvla_oft.plan import CUDA_CONTEXT, GIB, Job, Machine, Plan, make_plan, suggestions
from gymnast_openvla_oft.plan_command import BARE, read_job
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.tuning import Tuning
from gymnast_openvla_oft.work import Policy, acting

CPU = Machine(1, 1.0, is_gpu=False)
TRAIN: list[dict[str, Any]] = [
    {},
    {"vision": "frozen"},
    {"lora_rank": 3},
    {"lora_rank": 3, "vision": "frozen", "checkpointing": True},
    {"checkpointing": True},
]


def job(*overrides: str, train: dict[str, Any] | None = None) -> Job:
    config = load_config(RunConfig, None, [*BARE, "policy=openvla-oft", "policy.args.chunk_length=2", *overrides])
    made = read_job(config, decisions=3)
    return replace(made, tuning=Tuning(**(train or {})))


SMALL = (
    "policy.args.architecture={image_size: 16, dino: {patch_size: 8, width: 16, depth: 2, heads: 2}, siglip: "
    "{patch_size: 8, width: 16, depth: 2, heads: 2}, llm_width: 32, llm_layers: 2, llm_heads: 2, llm_intermediate: 64}"
)


@pytest.fixture(scope="module")
def small() -> Job:
    return job(SMALL)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """openvla-7b from its config.json, in bfloat16."""
    folder = tmp_path_factory.mktemp("7b")
    bounds = {name: [0.0] * 7 for name in ("q01", "q99", "min", "max")}
    (folder / "config.json").write_text(json.dumps({**config_7b(), "norm_stats": {"bridge": {"action": bounds}}}))
    return job(f"policy.args.checkpoint={folder}", "policy.args.dtype=bfloat16", "policy.args.chunk_length=5")


def size_of(plan: Plan, name: str) -> int:
    return next(item.bytes for item in plan.device if item.name == name)


@pytest.mark.parametrize("train", TRAIN, ids=str)
def test_weights_gradients_and_optimizer_state_are_exact(small: Job, train: dict[str, Any]) -> None:
    plan = make_plan(replace(small, tuning=Tuning(**train)), CPU)
    real = policy(small, train)
    parameters = list(real.parameters())
    trained = [p for p in parameters if p.requires_grad]
    assert plan.parameters == sum(p.numel() for p in parameters)
    assert plan.trained == sum(p.numel() for p in trained)
    assert size_of(plan, "weights") == sum(p.nbytes for p in parameters)
    optimizer = small.make_optimizer(trained)
    chunk = real.act(observation(), generator=torch.Generator().manual_seed(0))
    real.evaluate(observation(), chunk).log_prob_BLD.sum().backward()
    optimizer.step()
    assert size_of(plan, "gradients") == sum(p.grad.nbytes for p in parameters if p.grad is not None)
    states = [x for state in optimizer.state.values() for x in state.values()]
    assert size_of(plan, "optimizer state") == sum(x.nbytes for x in states)


@pytest.mark.parametrize("train", TRAIN, ids=str)
def test_activations_are_close_to_what_autograd_keeps(small: Job, train: dict[str, Any]) -> None:
    """Measured on a real pass: with checkpointing, what is kept until the backward pass and the largest layer."""
    real = policy(small, train)
    chunk = real.act(observation(), generator=torch.Generator().manual_seed(0))
    measured = kept_bytes(real, lambda: real.evaluate(observation(), chunk).log_prob_BLD)
    planned = make_plan(replace(small, tuning=Tuning(**train)), CPU)
    if train.get("checkpointing"):
        measured += size_of(planned, "a layer's backward pass")
    # The prompts are as long as those of the plan.
    assert real.processor.prompts(observation().instructions, torch.device("cpu")).ids_BS.shape[1] == TYPICAL_PROMPT
    assert 0.85 < size_of(planned, "activations") / measured < 1.15


@pytest.mark.parametrize("train", TRAIN, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_shallow_networks_tell_what_a_deep_one_keeps(small: Job, train: dict[str, Any], batch: int) -> None:
    shape, tuning, size = small.networks.shape, Tuning(**train), Pass(batch, 7, views=2)
    llama = copy.deepcopy(shape.llama)
    llama.num_hidden_layers = 5
    deep = replace(shape, llama=llama, dino=replace(shape.dino, depth=4), siglip=replace(shape.siglip, depth=6))
    whole = kept(*shaped_model(deep, torch.bfloat16, tuning), size)
    assert kept_by_layers(deep, torch.bfloat16, tuning, size, features=False) == whole


def test_what_was_found_out_about_a_network_is_asked_once(small: Job) -> None:
    """Plans of one network share what it computes and keeps; acting does not depend on what only learning does."""
    again, networks = job(SMALL).networks.shape, small.networks
    make_plan(small, CPU)  # building a network notes its kernel of attention in the shape
    assert networks.shape.is_like(again)
    deeper = replace(again, dino=replace(again.dino, depth=again.dino.depth + 1))
    wider = replace(again, llama=copy.deepcopy(again.llama))
    wider.llama.intermediate_size += 1
    assert not networks.shape.is_like(deeper) and not networks.shape.is_like(wider)
    policy = Policy(networks.shape, "float32", Tuning(), 7)
    frozen = replace(policy, tuning=Tuning(vision="frozen", checkpointing=True), features=True, mixed=True)
    assert networks.acting(policy) is networks.acting(frozen)
    assert networks.acting(policy)(2) == acting(policy)(2) == acting(frozen)(2)
    assert networks.learning(policy) is not networks.learning(frozen)
    assert networks.learning(policy) is networks.learning(replace(policy))
    factors = replace(policy, tuning=Tuning(lora_rank=3))
    assert networks.acting(factors) is not networks.acting(policy)


def kept_bytes(of: OpenVLAOFT, run: Callable[[], Tensor]) -> int:
    own = {p.untyped_storage().data_ptr() for p in of.parameters()}
    stored: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            stored[storage.data_ptr()] = storage.nbytes()
        return x

    layers = of.model.language_model.model.layers
    inputs: list[int] = []
    hooks = [layer.register_forward_pre_hook(lambda m, args: inputs.append(args[0].nbytes)) for layer in layers]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        held = run()
    for hook in hooks:
        hook.remove()
    assert held.requires_grad
    # Checkpointing holds the layers' inputs without autograd's hooks.
    return sum(stored.values()) + (sum(inputs) if of.config.train.checkpointing else 0)


def policy(of: Job, train: dict[str, Any]) -> OpenVLAOFT:
    architecture = replace(small_config().architecture, tokenizer_corpus=[])
    config = replace(small_config(), architecture=architecture, train=Tuning(**train))
    made = OpenVLAOFT(config).eval()
    # Another tokenizer, another number of rows: compare what the plan describes.
    vocabulary = of.networks.shape.llama.vocab_size
    width = of.networks.shape.llama.hidden_size
    for table in (made.model.language_model.model.embed_tokens, made.model.language_model.lm_head):
        learns = table.weight.requires_grad
        rows = torch.cat([torch.zeros(max(0, vocabulary - len(table.weight)), width), table.weight.detach()])
        table.weight = torch.nn.Parameter(rows[-vocabulary:] if len(rows) > vocabulary else rows, requires_grad=learns)
    return made


class TestSevenBillion:
    def test_numbers_that_are_known(self, seven: Job) -> None:
        plan = make_plan(seven, Machine(1, 80.0))
        assert plan.parameters == 7_541_237_184
        assert size_of(plan, "weights") == 2 * plan.parameters
        # 18 bytes a trained weight (2 of the weights), as in "ZeRO" (arXiv 1910.02054, section 3.1) with float32 sums
        # of gradients; and those of one pass.
        assert size_of(plan, "optimizer state") == pytest.approx(8 * plan.trained, rel=1e-4)
        assert size_of(plan, "float32 copies of what learns") == 4 * plan.trained
        assert size_of(plan, "gradients") == 4 * plan.trained
        assert size_of(plan, "gradients of one pass") == 2 * plan.trained
        towers, whole = forward_flops(seven.networks.shape, Pass(1, 35))
        # 2 operations a weight and token: 6.5 B weights of the layers over 324 tokens, and the towers' over 256.
        assert whole == pytest.approx(2 * (6.48e9 * 324 + 0.69e9 * 258 + 0.1e9 * 256), rel=0.08)
        assert 0.06 < towers / whole < 0.1

    def test_sharding_divides_and_ddp_does_not(self, seven: Job) -> None:
        ddp, fsdp = (make_plan(replace(seven, strategy=name), Machine(8, 80.0)) for name in ("ddp", "fsdp"))
        for name in ("weights", "gradients", "optimizer state", "float32 copies of what learns"):
            assert size_of(fsdp, name) == -(-size_of(ddp, name) // 8)
        assert not ddp.fits and fsdp.peak < ddp.peak / 2

    def test_advice_fits_and_is_in_order(self, seven: Job) -> None:
        plan = make_plan(replace(seven, trajectories=4), Machine(1, 48.0))
        steps = suggestions(plan)
        assert [name.rpartition(".")[2] for name, _ in steps] == [
            "micro_batch_size=2", "micro_batch_size=1", "checkpointing=true", "vision=frozen", "lora_rank=32",
        ]  # fmt: skip
        peaks = [plan.peak, *(after.peak for _, after in steps)]
        assert peaks == sorted(peaks, reverse=True) and steps[-1][1].fits
        assert not steps[-2][1].fits
        assert suggestions(steps[-1][1]) == []

    def test_the_saved_policy_is_loaded_when_the_rest_is_free(self, seven: Job) -> None:
        lora = replace(seven, tuning=Tuning(lora_rank=8, checkpointing=True), episodes=1, trajectories=1)
        plan = make_plan(lora, Machine(1, 24.0))
        assert size_of(plan, "saved policy beside the live one") == size_of(plan, "weights")
        assert plan.peak == plan.with_allowances(plan.phase("ending")) and not plan.fits
        (step,) = suggestions(plan)
        assert step[0] == "check_saved=false" and step[1].fits

    def test_autocast_sees_rounded_copies(self, seven: Job) -> None:
        wide = replace(seven, dtype="float32", mixed=True)
        plan = make_plan(wide, Machine(1, 80.0))
        assert size_of(plan, "weights as bf16-mixed sees them") == pytest.approx(4 * plan.trained, rel=1e-3)
        assert "float32 copies of what learns" not in {item.name for item in plan.device}

    def test_allowances_are_counted(self, seven: Job) -> None:
        plan = make_plan(seven, Machine(1, 80.0))
        assert plan.peak > plan.phase("always") + plan.phase("learning") + CUDA_CONTEXT

    def test_keys_and_values_of_plain_openvla(self, seven: Job) -> None:
        plan = make_plan(replace(seven, causal=True, episodes=4, actions=7), Machine(1, 80.0))
        tokens = 256 + 32 + 7
        assert size_of(plan, "policy's keys and values") == 2 * 32 * 4096 * tokens * 4 * 2


def test_lora_needs_no_copies(small: Job) -> None:
    copies = {"float32 copies of what learns", "gradients of one pass"}
    coarse = replace(small, dtype="bfloat16")
    for tuning, expected in ((Tuning(), copies), (Tuning(lora_rank=3), set())):
        names = {item.name for item in make_plan(replace(coarse, tuning=tuning), CPU).device}
        assert names & copies == expected


def test_features_and_rollouts_are_in_host_memory(small: Job) -> None:
    frozen = replace(small, tuning=Tuning(vision="frozen"), rollouts=10, rollout_bytes=1000)
    found = {item.name: item.bytes for item in make_plan(frozen, CPU).host}
    assert found == {"rollouts of an iteration": 10_000, "features of frozen vision": 10 * 3 * 4 * 32 * 4}
    bound = replace(frozen, rollouts=10**6, tuning=Tuning(vision="frozen", feature_store_mib=1))
    assert make_plan(bound, CPU).host[1].bytes == 2**20


class TestCommand:
    @pytest.fixture
    def gymnast(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
        def call(*arguments: str) -> tuple[int, str, str]:
            monkeypatch.setattr(sys, "argv", ["gymnast", "plan", *arguments])
            code: Any = 0
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code
            written = capsys.readouterr()
            return code or 0, written.out, written.err

        return call

    def test_a_preset_with_its_world_model(self, gymnast: Any) -> None:
        code, out, _ = gymnast("tabletop", "--json")
        found = json.loads(out)
        assert code == 0 and found["fits"] and found["suggestions"] == []
        names = [item["name"] for item in found["device"]]
        assert {"world model", "world model's cache", "activations"} <= set(names)
        weights = Path(__file__).parents[2] / "plugins/gymnast_tabletop/checkpoints/policy/model.safetensors"
        header = int.from_bytes(weights.read_bytes()[:8], "little")
        entries = json.loads(weights.read_bytes()[8 : 8 + header])
        entries.pop("__metadata__", None)
        assert found["parameters"] == sum(torch.Size(entry["shape"]).numel() for entry in entries.values())

    def test_what_does_not_fit_says_what_to_change(self, gymnast: Any) -> None:
        code, out, _ = gymnast("tabletop", "--gib", "1.3", "--gpus", "2", "loop.micro_batch_size=64")
        assert code == 1 and "DOES NOT FIT" in out
        steps = [line.split() for line in out.splitlines() if "loop.micro_batch_size=" in line]
        assert steps[0][:2] == ["1.", "loop.micro_batch_size=32"] and "fsdp, checkpointing" in out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("policy=random",), "random"),
            (("policy=openvla-oft", "policy.args.checkpoint=/nowhere"), "There is no folder /nowhere"),
            (("policy=openvla-oft", "policy.args.dtype=int8"), "int8"),
            (("policy=openvla-oft", "policy.args.train.vision=half"), "train.vision"),
            (("tabletop", "--hardware", "h1000"), "Did you mean 'h100'?"),
        ],
    )
    def test_mistakes_are_one_error(self, gymnast: Any, arguments: tuple[str, ...], message: str) -> None:
        code, _, err = gymnast(*arguments)
        assert code == 2 and err.count("Error: ") == 1 and message in err and "Traceback" not in err


def test_peak_is_in_bytes_of_the_machine(small: Job) -> None:
    plan = make_plan(small, CPU)
    assert make_plan(small, Machine(1, plan.peak / GIB, is_gpu=False)).fits
    assert not make_plan(small, Machine(1, (plan.peak - 1) / GIB, is_gpu=False)).fits


def test_the_images_of_a_decision_are_the_policy_s_own() -> None:
    def planned(*overrides: str, views: int | None = None) -> Job:
        return read_job(load_config(RunConfig, None, [*BARE, "policy=openvla-oft", *overrides]), views=views)

    one, three = planned(), planned("policy.args.cameras=[front,left,wrist]")
    assert (one.views, three.views, planned("policy.args.images=2").views, planned(views=4).views) == (1, 3, 2, 4)
    assert three.rollout_bytes == 3 * one.rollout_bytes
