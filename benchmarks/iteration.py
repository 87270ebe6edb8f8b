"""One iteration of reinforcement learning, ours against a faithful loop of the reference, and against the time plan.

    python benchmarks/iteration.py [--size small|medium|wide|all] [--ways exact chunk ...] [--again]

Every way runs in a process of its own, one thread, from the same random weights: seconds by part (CPU seconds, so that
other jobs on the machine do not count; of the judge, seconds on the wall that one waits for it), peak memory of the
process, and the largest difference of what it makes from the recomputing reference. The judge takes a second an answer,
is asked in parallel, and is shown every third frame, as GPT-4o is by default. The reference decodes every frame; ours
those that the policy or the judge looks at, the others after the clock has stopped.

"work" counts the floating-point operations of every way (products and convolutions; PyTorch's counter), and with them
what could be gained: how many times fewer ours needs is how many times faster it would be where both reach the same
rate and nothing else takes time. What was measured is kept: a run that was stopped goes on. Writes
benchmarks/results/iteration.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from iteration_parts import JUDGES, SIZES, Clock, Size, SleepingJudge, WorkClock, autoencoder, built, peak_mib
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from gymnast_core.processes import Alone
from gymnast_core.rollouts.deal import Group
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.seeds import seeded_generator
from gymnast_core.training.tally import Tally
from gymnast_core.training.update import Updater
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_vlm_reward.frames import FramesConfig
from gymnast_worldgym.world_model import WorldGym

RESULTS = Path(__file__).parent / "results"
KEPT = Path(__file__).parents[1] / "runs" / "benchmark-iteration"
WAYS = {
    "recomputing": "reference, recomputing",
    "shipped": "reference, its own cache",
    "exact": "ours, exact",
    "chunk": "ours, a chunk at once",
    "plan": "time plan",
    "work": "work",
}
FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""Attention on a CPU, which PyTorch's counter does not know."""
TIMED = ("recomputing", "shipped", "exact", "chunk")
COMPUTED = ("imagine", "decode", "act", "update")


def ours(
    size: Size, vae: str, together: int | None, judge_seconds: float, clock: Clock, onednn: bool = True
) -> dict[str, Tensor]:
    """One iteration of ours: a group is judged while the next one is imagined."""
    policy, world, tasks = built(size, vae, together)
    if not onednn:
        world.network.set_onednn(False)
    latents = clock.watch(world)
    watched: list[tuple[Any, str, str]] = [
        (world, "reset", "imagine"), (world, "step", "imagine"), (policy, "act", "act"),
    ]  # fmt: skip
    for owner, method, part in watched:
        setattr(owner, method, clock.around(part, getattr(owner, method)))
    judge, optimizer = SleepingJudge(judge_seconds), size.grpo()
    updater = Updater(
        policy, {}, optimizer, [], seed=0, micro_batch_size=1, precision="32-true", processes=Alone()
    )  # fmt: skip
    updater.torch_optimizer = optimizer.torch_optimizer(updater.parameters)
    made = []
    for number, task in enumerate(tasks):
        rollouts = imagine(
            policy, world, [task] * size.group_size, horizon=size.horizon, temperature=1.6,
            generator=seeded_generator(0, "imagine", number), groups=[number] * size.group_size,
        )  # fmt: skip
        made.append((rollouts, judge.submit(rollouts)))
    with clock("judge"):
        groups = [Group(i, tuple(rollouts), tuple(answer.result())) for i, (rollouts, answer) in enumerate(made)]
    with clock("update"):
        updater.update(groups, 0, Tally())
    clock.stop()
    every = [rollout for rollouts, _ in made for rollout in rollouts]
    frames = torch.stack([rollout.frames_TVHWC for rollout in every])
    return outputs(policy, latents, frames, torch.stack([rollout.log_prob_NLD.flatten() for rollout in every]))


def reference(size: Size, vae: str, cached: bool, judge_seconds: float, clock: Clock) -> dict[str, Tensor]:
    """One iteration as the reference makes it."""
    from iteration_reference import Setting, learn, play

    policy, world, tasks = built(size, vae, 1)
    world.network.set_onednn(False)
    latents = clock.watch(world)
    grpo = size.grpo()
    setting = Setting(
        size.horizon, 1.6, size.group_size, judge_seconds, grpo.learning_rate(0), grpo.max_grad_norm
    )  # fmt: skip
    optimizer = grpo.torch_optimizer([p for p in policy.parameters() if p.requires_grad])
    played = [play(policy, world, task, number, cached, setting, clock) for number, task in enumerate(tasks)]
    with clock("update"):
        learn(policy, optimizer, played, setting)
    log_probs = torch.cat([torch.stack(group.log_probs, dim=1).flatten(1) for group in played])
    return outputs(policy, latents, torch.cat([group.frames_BTVHWC for group in played]), log_probs)


def outputs(policy: OpenVLAOFT, latents: Sequence[Tensor], frames: Tensor, log_probs: Tensor) -> dict[str, Tensor]:
    """What ways are compared by: latents, frames, log-probabilities, and a part of the weights afterwards."""
    weights = torch.cat([p.detach().float().flatten()[::17] for p in policy.parameters()])
    return {
        "latents": torch.cat(list(latents), dim=1),
        "frames": frames.contiguous(),
        "log_probs": log_probs.detach().contiguous(),
        "weights": weights,
    }


def planned(size: Size, vae: str, judge_seconds: float) -> dict[str, Any]:
    """What the time plan says of our two ways, by part, on this machine."""
    from gymnast_openvla_oft.tuning import Tuning
    from gymnast_openvla_oft.work import Policy, acting, learning, stepping
    from gymnast_plan.forecast import Iteration, Judging, forecast, whole_work
    from gymnast_plan.measure import measure

    policy, _, _ = built(size, vae, None)
    shape = Policy(policy.model.shape, "float32", Tuning(), size.chunk * policy.action_dim)
    learn, decisions = cache(learning(shape)), size.horizon // size.chunk
    grpo = size.grpo()
    trained = [p for p in policy.parameters() if p.requires_grad]
    common = Iteration(
        groups=size.groups, group_size=size.group_size, together=size.group_size, decisions=decisions,
        minibatch=size.groups * size.group_size, micro=1, epochs=1, world=lambda n: {}, act=cache(acting(shape)),
        update=lambda n: learn(n * decisions), step=stepping(trained, grpo.torch_optimizer),
        judging=Judging(judge_seconds, together=JUDGES),
    )  # fmt: skip
    found: dict[str, Any] = {}
    for way, together in (("exact", 1), ("chunk", None)):
        judged = FramesConfig().select(1 + size.horizon)
        world = cache(WorldGym.work_plan(size.world(vae, together), size.horizon, size.chunk, False, judged))
        iteration = replace(common, world=world)
        began = time.process_time()
        row = measure(whole_work(iteration), seconds=90.0)
        found[way] = {
            "seconds": dict(forecast(iteration, row).parts), "measuring_cpu_seconds": time.process_time() - began,
            "products": {str(dtype): rate for dtype, rate in row.rates.items()}, "bandwidth": row.bandwidth,
            "launch": row.launch, "operators": len(row.known),
        }  # fmt: skip
    return found


def attention_work(query: Sequence[int], key: Sequence[int], value: Sequence[int], *rest: Any, **more: Any) -> int:
    """Floating-point operations of fused attention, from the shapes of its inputs."""
    return int(sdpa_flop_count(query, key, value))


def made_by(
    way: str, size: Size, vae: str, judge_seconds: float, clock: Clock, onednn: bool = True
) -> dict[str, Tensor]:
    if way in ("exact", "chunk"):
        return ours(size, vae, 1 if way == "exact" else None, judge_seconds, clock, onednn)
    return reference(size, vae, way == "shipped", judge_seconds, clock)


def counted(size: Size, vae: str) -> dict[str, dict[str, int]]:
    """Floating-point operations by way and part. Products through oneDNN's own operator, which PyTorch does not count,
    go through the usual one here."""
    found = {}
    for way in TIMED:
        with FlopCounterMode(display=False, custom_mapping={FUSED: attention_work}) as counter:
            clock = WorkClock(counter)
            made_by(way, size, vae, 0.0, clock, onednn=False)
        found[way] = {part: clock.work[part] for part in COMPUTED}
    return found


def work(name: str, way: str, judge_seconds: float) -> None:
    """What a process of its own does: one way, once. Leaves its numbers and what it made in `KEPT`."""
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # that nothing was trained is known
    size, clock = SIZES[name], Clock()
    with tempfile.TemporaryDirectory() as folder:
        vae = autoencoder(folder)
        if way == "plan":
            found = planned(size, vae, judge_seconds)
        elif way == "work":
            found = counted(size, vae)
        else:
            began = time.process_time(), time.perf_counter()
            imported = peak_mib()
            made = made_by(way, size, vae, judge_seconds, clock)
            clock.stop()
            found = {
                "cpu": dict(clock.cpu), "wall": dict(clock.wall), "cpu_with_building": time.process_time() - began[0],
                "wall_with_building": time.perf_counter() - began[1],
                "peak_mib": clock.peak_mib - imported,
            }  # fmt: skip
            save_file(made, str(KEPT / f"{name}-{way}.safetensors"))
    (KEPT / f"{name}-{way}.json").write_text(json.dumps(found, indent=1))


def differences(name: str, way: str) -> dict[str, float]:
    """Largest absolute differences from the recomputing reference."""
    from safetensors.torch import load_file

    files = [KEPT / f"{name}-{one}.safetensors" for one in (way, "recomputing")]
    if not all(file.is_file() for file in files):
        return {}
    mine, theirs = (load_file(str(file)) for file in files)
    return {part: float((mine[part].float() - theirs[part].float()).abs().max()) for part in mine}


def seconds(found: dict[str, Any]) -> float:
    """What an iteration takes on a core of its own: computing, and waiting for the judge."""
    return sum(found["cpu"].get(part, 0.0) for part in COMPUTED) + found["wall"].get("judge", 0.0)


def collected() -> dict[str, Any]:
    """All that was measured so far: what is kept here, and beside it what the results hold of a machine like this."""
    found: dict[str, Any] = {
        "machine": f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}", "torch": torch.__version__,
        "sizes": {},
    }  # fmt: skip
    file = RESULTS / "iteration.json"
    stored = json.loads(file.read_text()) if file.exists() else found
    if (stored["machine"], stored["torch"]) == (found["machine"], found["torch"]):
        found["sizes"] = stored["sizes"]
    for name, size in SIZES.items():
        ways = {way: KEPT / f"{name}-{way}.json" for way in WAYS}
        there = {way: json.loads(file.read_text()) for way, file in ways.items() if file.is_file()}
        for way in there:
            if way in TIMED:
                there[way] |= {"seconds": seconds(there[way]), "differences": differences(name, way)}
        if there:
            before = found["sizes"].get(name, {"ways": {}})["ways"]
            both = {**before, **there}
            found["sizes"][name] = {"size": vars(size), "ways": {way: both[way] for way in WAYS if way in both}}
    return found


def report(found: dict[str, Any]) -> str:
    lines = [
        "# One iteration, ours and the reference's",
        "",
        f"`python benchmarks/iteration.py`; {found['machine']}, one thread, torch {found['torch']}. CPU seconds by",
        "part; of the judge (1 s an answer, in parallel), seconds that one waits for it. Small networks with random",
        "weights. Peak memory is that beyond the libraries. Differences are the largest from the recomputing",
        "reference: of a latent (unit variance), a pixel (of 255), a log-probability (nats), and a weight after the",
        "update (the first step of AdamW moves each by the learning rate of 1e-4, whichever way).",
        "Other jobs share the caches: a busy machine takes more of all parts, and less so of operators alone.",
    ]
    for name, entry in found["sizes"].items():
        s, ways = entry["size"], entry["ways"]
        lines += [
            "",
            f"**{name}**: world of width {s['dim']}, {s['layers']} layers, {(s['side'] // 16) ** 2} tokens a frame, "
            f"window {s['window']}, {s['steps']} steps; policy of width {s['llm'][0]}, {s['llm'][1]} layers; "
            f"{s['groups']} groups of {s['group_size']}, {s['horizon']} frames, chunks of {s['chunk']}.",
            "",
            "| | imagine | decode | act | judge | update | together | × recomputing | × its own cache | peak, MiB "
            "| latent | pixel | log-probability | weight |",
            "|" + "---|" * 14,
        ]
        lines += [_row(way, ways) for way in ways if way in TIMED]
        if "work" in ways:
            lines += ["", "Work, GFLOP, and what could be gained by it at equal rates ÷ what is gained:", ""]
            lines += ["| | imagine | decode | act | update | together | × recomputing | × its own cache |"]
            lines += ["|" + "---|" * 8, *(_work_row(way, ways) for way in ways if way in TIMED)]
        if "plan" in ways:
            lines += ["", "Time plan, seconds predicted ÷ measured:", ""]
            lines += ["| | imagine | decode | act | update | together |", "|---|---|---|---|---|---|"]
            lines += [_planned_row(way, ways) for way in ("exact", "chunk") if way in ways]
    return "\n".join(lines) + "\n"


def _row(way: str, ways: dict[str, Any]) -> str:
    found = ways[way]
    cells = [f"{(found['wall'] if p == 'judge' else found['cpu']).get(p, 0.0):.2f}" for p in
             ("imagine", "decode", "act", "judge", "update")]  # fmt: skip
    faster = [f"{ways[base]['seconds'] / found['seconds']:.1f}" if base in ways else "–" for base in
              ("recomputing", "shipped")]  # fmt: skip
    off = found["differences"]
    apart = ["–"] * 4 if way == "recomputing" or not off else [
        f"{off['latents']:.1e}", f"{off['frames']:.0f}", f"{off['log_probs']:.1e}", f"{off['weights']:.1e}"
    ]  # fmt: skip
    return "| " + " | ".join(
        [WAYS[way], *cells, f"{found['seconds']:.2f}", *faster, f"{found['peak_mib']:.0f}", *apart]
    ) + " |"  # fmt: skip


def _work_row(way: str, ways: dict[str, Any]) -> str:
    """The judge is waited for beside the work, in either."""
    work, mine = ways["work"], ways["work"][way]
    cells = [f"{mine[part] / 1e9:.0f}" for part in COMPUTED] + [f"{sum(mine.values()) / 1e9:.0f}"]
    for base in ("recomputing", "shipped"):
        possible = sum(work[base].values()) / sum(mine.values())
        if base not in ways or way in ("recomputing", "shipped"):
            cells.append(f"{possible:.1f}")
        else:
            cells.append(f"{possible:.1f} ÷ {ways[base]['seconds'] / ways[way]['seconds']:.1f}")
    return f"| {WAYS[way]} | " + " | ".join(cells) + " |"


def _planned_row(way: str, ways: dict[str, Any]) -> str:
    said, took = ways["plan"][way]["seconds"], ways[way]["cpu"]
    pairs = [(said[part], took[part]) for part in COMPUTED]
    pairs.append((sum(a for a, _ in pairs), sum(b for _, b in pairs)))
    return f"| {WAYS[way]} | " + " | ".join(f"{a:.2f} ÷ {b:.2f} = {a / b:.2f}" for a, b in pairs) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*SIZES, "all"], default="small")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY", help=str([*WAYS]))
    parser.add_argument("--again", action="store_true", help="measure once more what was measured before")
    parser.add_argument("--judge-seconds", type=float, default=1.0)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    if options.work:
        work(*options.work, options.judge_seconds)
        return
    for name in SIZES if options.size == "all" else [options.size]:
        for way in options.ways:
            if (KEPT / f"{name}-{way}.json").is_file() and not options.again:
                continue
            print(f"{name}: {WAYS[way]} ...", flush=True)
            command = [sys.executable, __file__, "--work", name, way, "--judge-seconds", str(options.judge_seconds)]
            subprocess.run(command, check=True)
            found = collected()
            (RESULTS / "iteration.json").write_text(json.dumps(found, indent=1) + "\n")
            (RESULTS / "iteration.md").write_text(report(found))
    print(report(collected()))


if __name__ == "__main__":
    main()
