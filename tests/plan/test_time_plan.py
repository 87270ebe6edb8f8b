"""The time plan: operations against hand counts and real runs, seconds against data sheets, and what it advises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gymnast_core.config import RunConfig, load_config
from gymnast_core.rollouts.deal import deals
from gymnast_core.types import Task, one_camera
from gymnast_openvla_oft.architecture import Architecture, Tower, checkpoint_config, model_shape
from gymnast_openvla_oft.dry_run import Pass, forward, shaped_model
from gymnast_openvla_oft.plan import Machine, make_plan
from gymnast_openvla_oft.plan_command import read_job
from gymnast_openvla_oft.time_plan import TimePlan, read_iteration
from gymnast_openvla_oft.tuning import Tuning
from gymnast_openvla_oft.work import Policy, acting, learning, stepping
from gymnast_plan import measure as measuring
from gymnast_plan.forecast import PARTS, Change, Iteration, Judging, dealt, forecast, next_change, whole_work
from gymnast_plan.hardware import STATED, Hardware, find_row, row_of
from gymnast_plan.work import Op, Traced, Work, add, flops, nbytes, trace
from gymnast_worldgym.facts import settle
from gymnast_worldgym.work import schedule
from gymnast_worldgym.world_model import WorldGym

TERA = 1e12
VAE = Path(__file__).parents[1] / "golden/worldgym/vae_tiny"


def product(rows: int, inner: int, columns: int, dtype: torch.dtype = torch.float32) -> Work:
    a, b = torch.empty(rows, inner, dtype=dtype, device="meta"), torch.empty(inner, columns, dtype=dtype, device="meta")
    return {op: 1.0 for op in trace(lambda: a @ b)}


class TestWork:
    def test_a_product_by_hand(self) -> None:
        work = product(3, 5, 7)
        assert flops(work) == 2 * 3 * 5 * 7
        assert nbytes(work) == 4 * (15 + 35 + 21)

    def test_a_transformer_layer_by_hand(self) -> None:
        """Per token 24 D² in the projections and the MLP of 4 D, 4 T D in attention ("Scaling Laws", arXiv 2001.08361,
        table 1); twice that backward."""
        width, length = 32, 8
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, device="meta")
        x = torch.empty(2, length, width, device="meta", requires_grad=True)
        forward_only = 2 * length * (24 * width**2 + 4 * length * width)
        counted: Work = {}
        for op in trace(lambda: layer(x).sum().backward()):
            add(counted, {op: 1.0})
        assert flops(counted) == 3 * forward_only

    def test_two_small_batches_tell_of_every_other(self) -> None:
        layer = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Unflatten(-1, (2, 4)))

        def run(batch: int) -> None:
            with torch.no_grad():
                layer(torch.zeros(batch, 3, 6)).transpose(0, 1).contiguous()

        direct: Work = {}
        for op in trace(lambda: run(11)):
            add(direct, {op: 1.0})
        assert Traced(run)(11) == direct

    def test_views_cost_nothing(self) -> None:
        x = torch.empty(4, 6, device="meta")
        assert nbytes({op: 1.0 for op in trace(lambda: x.view(2, 12).t()[0])}) == 0


@pytest.fixture(scope="module")
def small_world() -> WorldGym.Config:
    return WorldGym.Config(
        image_size=[16, 16], channels=3, patch_size=8, dim=16, layers=4, heads=2, window=4, prediction="v",
        denoising_steps=3, horizon=1,
    )  # fmt: skip


class TestWorld:
    def test_passes_by_hand(self, small_world: WorldGym.Config) -> None:
        """Frame by frame: three steps each, the first with the frame that was finished; once the window is full, the
        first with the whole window."""
        found = {
            (p.kind.frames, p.kind.remembered, p.kind.commit): p.count
            for p in schedule(settle(small_world, None), 6, 2)
        }
        # Frames 1 to 3 grow the window, 4 to 6 slide it; of two frames that stay, the first layer is remembered.
        assert found == {(2, 0, 1): 3, (1, 0, 0): 12, (4, 2, 3): 3}

    def test_operations_are_those_of_a_real_rollout(self, small_world: WorldGym.Config) -> None:
        world = WorldGym(small_world)
        task = Task("t", "push", one_camera(torch.zeros(1, 16, 16, 3, dtype=torch.uint8)))
        state = world.reset([task, task, task], generator=torch.Generator().manual_seed(0))
        real: Work = {}
        for _ in range(3):
            with torch.no_grad():
                for op in trace(lambda: world.step(state, torch.zeros(3, 2, 10))):
                    add(real, {op: 1.0})
        planned = WorldGym.work_plan(small_world, 6, 2, False)(3)
        # The start of three equal episodes was encoded once, before: one frame of 18 + 3 · 3 + 3.
        assert flops(planned["imagine"]) == pytest.approx(flops(real), rel=0.05)
        assert set(planned) == {"imagine", "decode"} and nbytes(planned["decode"]) > 0

    def test_frames_that_nobody_looks_at_are_not_decoded(self, small_world: WorldGym.Config) -> None:
        """Policies look at the last frame of each chunk of 2; judges at what they announce."""
        by_latents = replace(small_world, image_size=[64, 64], channels=16, codec="autoencoder-kl", vae=str(VAE))

        def decoding(*judged: int) -> float:
            return flops(WorldGym.work_plan(by_latents, 6, 2, False, judged)(3)["decode"]) - start

        whole, start = WorldGym.work_plan(by_latents, 6, 2, False), 0.0
        every = flops(whole(3)["decode"])
        start = (3 * every - flops(whole(9)["decode"])) / 2  # of a group once
        assert decoding(0, 6) == pytest.approx((every - start) / 2)
        assert decoding(0, 1, 4, 6) == pytest.approx((every - start) * 4 / 6)

    def test_guidance_doubles(self, small_world: WorldGym.Config) -> None:
        once, twice = (schedule(settle(replace(small_world, guidance=w), None), 6, 2) for w in (1.0, 3.0))
        assert [(p.kind.branches, p.count) for p in twice] == [(2, p.count) for p in once]


@pytest.fixture(scope="module")
def policy() -> Policy:
    tower = Tower(patch_size=8, width=16, depth=4, heads=2)
    architecture = Architecture(
        image_size=16, dino=tower, siglip=replace(tower, depth=3), llm_width=32, llm_layers=3, llm_heads=2,
        llm_intermediate=64, action_low=[-1.0] * 2, action_high=[1.0] * 2,
    )  # fmt: skip
    return Policy(model_shape(checkpoint_config(architecture, 300, "x")), "float32", Tuning(), 4)


class TestPolicy:
    def test_shallow_networks_tell_of_the_deep_one(self, policy: Policy) -> None:
        model, mode = shaped_model(policy.shape, torch.float32, Tuning())
        whole: Work = {}
        with mode, torch.no_grad():
            for op in trace(lambda: forward(model, Pass(5, 4))):
                add(whole, {op: 1.0})
        assert flops(acting(policy)(5)) == pytest.approx(flops(whole), rel=1e-6)

    def test_learning_is_three_passes_and_checkpointing_four(self, policy: Policy) -> None:
        once = flops(acting(policy)(6))
        assert flops(learning(policy)(6)) == pytest.approx(3 * once, rel=0.05)
        again = replace(policy, tuning=Tuning(checkpointing=True))
        assert flops(learning(again)(6)) == pytest.approx(4 * once, rel=0.05)

    def test_coarse_weights_are_rounded_after_a_step(self) -> None:
        def bytes_of(dtype: torch.dtype) -> float:
            weights = [nn.Parameter(torch.empty(64, 64, dtype=dtype, device="meta")) for _ in range(3)]
            return nbytes(stepping(weights, lambda p: torch.optim.AdamW(p)))

        # AdamW reads weight, gradient and two moments and writes three of them, 4 bytes each.
        assert bytes_of(torch.float32) >= 3 * 64 * 64 * 7 * 4
        assert bytes_of(torch.bfloat16) > bytes_of(torch.float32)


def constant(work: Work) -> Callable[[int], Work]:
    return lambda count: add({}, work, count)


@pytest.fixture
def iteration() -> Iteration:
    """16 groups of 8; a rollout imagines for 10 ms on an H100, decodes for 1, acts for 4 and learns for 40."""
    unit = product(8192, 8192, 8192, torch.bfloat16)
    second = 1 / STATED["h100"].seconds(unit)
    return Iteration(
        groups=16, group_size=8, together=64, decisions=8, minibatch=128, micro=1, epochs=1,
        world=lambda n: {"imagine": add({}, unit, 0.01 * n * second), "decode": add({}, unit, 0.001 * n * second)},
        act=constant(add({}, unit, 0.0005 * second)), update=constant(add({}, unit, 0.04 * second)), step={},
        gradient_bytes=10**9, frame_bytes=10**6, snapshot_bytes=10**9,
    )  # fmt: skip


class TestForecast:
    def test_seconds_are_those_of_the_data_sheet(self) -> None:
        """NVIDIA H100 SXM: 989.4 TFLOP/s bfloat16 and 66.9 TFLOP/s float32, dense; 3.35 TB/s."""
        row, size = find_row("h100"), 8192
        half, single = (row.seconds(product(size, size, size, t)) for t in (torch.bfloat16, torch.float32))
        assert half == pytest.approx(2 * size**3 / (0.5 * 989.4 * TERA))
        assert single / half == pytest.approx(989.4 / 66.9)
        thin = product(1, size, size, torch.bfloat16)
        assert row.seconds(thin) == pytest.approx(nbytes(thin) / (0.75 * 3.35 * TERA))
        assert row.seconds(product(1, 1, 1)) == row.launch
        assert not any(row.measured for row in STATED.values())

    def test_a_gpu_is_found_by_its_name(self) -> None:
        found = row_of("NVIDIA H200")
        assert found is not None and found.name == "h200" and row_of("Tesla T4") is None

    def test_parts_by_hand(self, iteration: Iteration) -> None:
        parts = forecast(iteration, find_row("h100")).parts
        assert set(parts) == set(PARTS)
        assert parts["imagine"] == pytest.approx(1.28) and parts["decode"] == pytest.approx(0.128)
        assert parts["act"] == pytest.approx(128 * 8 * 0.0005) and parts["update"] == pytest.approx(5.12)
        assert parts["transfer"] == pytest.approx(2 * 128 * 1e6 / (0.8 * 64e9)) and parts["judge"] == 0
        # A twentieth of all time, of which a second would be more.
        assert parts["snapshot"] == pytest.approx(sum(parts.values()) / 20)

    def test_more_gpus_are_never_slower_and_share_out_what_they_can(self, iteration: Iteration) -> None:
        found = [forecast(iteration, find_row("h100"), gpus) for gpus in (1, 2, 4, 8, 16, 32, 64)]
        computed = [sum(one.parts[name] for name in ("imagine", "decode", "act", "update")) for one in found]
        assert computed == sorted(computed, reverse=True)
        totals = [one.total for one in found]
        assert totals[:4] == sorted(totals[:4], reverse=True)
        # From one machine to the next, gradients take the network.
        assert found[4].parts["transfer"] > found[3].parts["transfer"]
        assert found[2].parts["update"] == pytest.approx(found[0].parts["update"] / 4)
        assert [one.idle for one in found] == [0, 0, 0, 0, 0, 16, 48]
        # A ring of 2: each sends all gradients once.
        alone = forecast(replace(iteration, frame_bytes=0), find_row("h100"), 2)
        assert alone.parts["transfer"] == pytest.approx(1e9 / (0.8 * 450e9))

    @pytest.mark.parametrize(
        ("groups", "together", "gpus"), [(16, 64, 1), (5, 16, 1), (7, 24, 2), (3, 4, 1), (9, 8, 4)]
    )
    def test_batches_are_those_of_the_core(self, iteration: Iteration, groups: int, together: int, gpus: int) -> None:
        changed = replace(iteration, groups=groups, together=together)
        each = min(max(together // 8, 1), -(-groups // gpus))
        task = Task("t", "push", one_camera(torch.zeros(1, 1, 1, 3, dtype=torch.uint8)))
        core = deals([task] * groups, 0, 8, min(together, 8 * each))[::gpus]
        assert dealt(changed, gpus) == [len(batch.tasks) for deal in core for batch in deal.batches]

    def test_a_judge_hides_behind_the_next_batch(self, iteration: Iteration) -> None:
        row = find_row("h100")

        def waited(**judging: float) -> float:
            return forecast(replace(iteration, judging=Judging(**judging)), row).parts["judge"]  # type: ignore[arg-type]

        # Two batches of 64, 0.96 s each: the second is judged when all else is done.
        assert waited(seconds=0.5, together=64) == pytest.approx(0.5)
        assert waited(seconds=0.5, together=32) == pytest.approx(1.04)
        assert waited(seconds=0.5, together=64, per_minute=60) == pytest.approx(128 - 0.96)

    def test_bottleneck_and_what_to_change(self, iteration: Iteration) -> None:
        row = find_row("h100")
        assert forecast(iteration, row).bottleneck == "update"
        cheaper = Change("update.half", "", ("update",), lambda: replace(iteration, epochs=1, update=constant({})))
        useless = Change("world.half", "", ("imagine",), lambda: replace(iteration, world=lambda n: {}))
        found = next_change(iteration, row, 1, [useless, cheaper])
        assert found is not None and found[0] is cheaper and found[1].bottleneck == "imagine"
        assert next_change(iteration, row, 1, [useless]) is None
        slow = replace(iteration, judging=Judging(1.0))
        assert forecast(slow, row).bottleneck == "judge"


class TestPlanOfARun:
    def test_the_shipped_preset(self) -> None:
        config = load_config(RunConfig, "tabletop", [])
        plan = make_plan(read_job(config), Machine(1, 80.0))
        found = read_iteration(config, plan, is_gpu=True, judge_seconds=0.2)
        assert (found.groups, found.group_size, found.decisions, found.minibatch) == (48, 8, 4, 96)
        # The 2 operations a weight of the blocks and token, 16 frames a rollout of 16 tokens each, at least once.
        blocks = 2 * flops(product(16, 24 * 192, 192))
        assert flops(found.world(8)["imagine"]) > 8 * 16 * blocks
        assert found.judging == Judging(0.2)
        report = "\n".join(TimePlan(found, find_row("h100"), 2, []).report())
        assert "a prediction from a data sheet, not measured" in report and "With 2 GPUs, judge takes most" in report
        rows = [line.split() for line in report.splitlines() if line[:3].strip().isdigit() or line[:4] == "  64"]
        assert [row[0] for row in rows] == ["1", "2", "4", "8", "16", "32", "64"]

    def test_a_plan_says_what_is_next(self, iteration: Iteration) -> None:
        change = Change("policy.args.x=1", "less exact", ("update",), lambda: replace(iteration, update=constant({})))
        found = TimePlan(iteration, find_row("h100"), 1, [change])
        assert "Next: policy.args.x=1 (less exact): 7.42 -> 2.03 s." in "\n".join(found.report())
        assert found.as_dict()["next"]["change"] == "policy.args.x=1" and found.as_dict()["measured"] is False


class TestMeasured:
    def test_operators_are_timed_and_others_follow(self, iteration: Iteration) -> None:
        work = add(product(64, 64, 64), product(96, 96, 96))
        row = measuring.measure(work, seconds=2.0)
        assert row.measured and not row.is_gpu and set(row.known) <= set(work) and row.known
        other = product(80, 80, 80)
        bounds = {op: row.known[op] / row.bound(op) for op in row.known}
        (op,) = other
        assert min(bounds.values()) * 0.99 <= row.seconds(other) / row.bound(op) <= max(bounds.values()) * 1.01

    def test_what_was_measured_is_what_it_takes(self) -> None:
        (op,) = product(64, 64, 64)
        row = Hardware("x", "", {torch.float32: 1e9}, 1e9, 1e9, 1e-6, is_gpu=False, known={op: 0.5})
        assert row.seconds({op: 3.0}) == 1.5

    def test_all_work_of_an_iteration(self, iteration: Iteration) -> None:
        seconds = STATED["h100"].seconds(whole_work(iteration))
        assert seconds == pytest.approx(1.28 + 0.128 + 0.512 + 5.12)


def test_an_operator_knows_its_dtype() -> None:
    (op,) = (one for one in product(4, 4, 4, torch.bfloat16) if isinstance(one, Op))
    assert op.dtype is torch.bfloat16 and op.name == "mm"
