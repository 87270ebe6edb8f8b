"""The command `gymnast plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gymnast_core.cli import SOURCE_AND_OVERRIDES

if TYPE_CHECKING:
    from gymnast_core.config import ComponentConfig, RunConfig
    from gymnast_openvla_oft.plan import Job, Machine, Networks, Plan
    from gymnast_openvla_oft.time_plan import Planned, TimePlan
    from gymnast_plan.forecast import Iteration
    from gymnast_plan.hardware import Hardware

POLICIES = ("openvla-oft", "openvla")
BARE = ("world_model=gymnasium", "reward_model=environment", "optimizer=grpo", "tasks=tabletop")
"""What a plan of the policy alone assumes about the rest."""
HINT = "Seconds of an iteration: say --hardware measured, or a GPU, e.g. --hardware h100 --gpus 8."


@click.command()
@SOURCE_AND_OVERRIDES
@click.option("--gpus", type=click.IntRange(1), help="GPUs, one process each.  [default: those of this machine]")
@click.option("--gib", type=click.FloatRange(0, min_open=True), help="Memory of each, GiB.  [default: as found]")
@click.option("--strategy", type=click.Choice(["ddp", "fsdp"]), default="ddp", show_default=True)
@click.option("--decisions", type=click.IntRange(1), help="Decisions whose gradient is computed at once; default: "
              "loop.micro_batch_size trajectories of the config.")  # fmt: skip
@click.option("--views", type=click.IntRange(1), help="Images a decision.  [default: the policy's]")
@click.option("--hardware", help="What seconds are predicted for: measured (this machine, in some seconds), or the "
              "data sheet of a GPU: h100, h200, a100, l40s, rtx-4090.  [default: the GPU of this machine]")  # fmt: skip
@click.option("--judge-seconds", type=click.FloatRange(0), help="How long the judge takes to answer about a rollout.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def plan(
    arguments: tuple[str, ...],
    gpus: int | None,
    gib: float | None,
    strategy: str,
    decisions: int | None,
    views: int | None,
    hardware: str | None,
    judge_seconds: float | None,
    as_json: bool,
) -> None:
    """Say what of a training fits into memory and how long an iteration takes, before anything is loaded, and what to
    change.

    Takes what `gymnast train` takes, or overrides for the policy alone: gymnast plan policy=openvla-oft
    policy.args.checkpoint=DIR policy.args.dtype=bfloat16 --gpus 8 --gib 80. Of a checkpoint, only the JSON files are
    read; of a hub repository, only those are downloaded. fsdp is trainer.strategy=fsdp2: the copy that learns is
    shared out, and every process acts with a whole policy. Seconds, by part and for 1 to 64 GPUs, follow from counted
    operations and bytes and from what the hardware does in a second. The exit code is 1 if it does not fit.
    """
    from gymnast_core.cli import config_from
    from gymnast_core.config import RunConfig, split_arguments
    from gymnast_openvla_oft.plan import make_plan

    named, _ = split_arguments(arguments)

    known: Networks | None = None

    def planned(overrides: Sequence[str]) -> tuple[RunConfig, Plan]:
        nonlocal known
        config = config_from(RunConfig, (*(() if named else BARE), *arguments, *overrides), None)
        job = read_job(config, strategy, decisions, views)
        if known is not None and known.shape.is_like(job.networks.shape):
            job = replace(job, networks=known)  # what was found out about them holds
        known = job.networks
        return config, make_plan(job, _machine(gpus, gib, config))

    row = _row(hardware)
    config, found = planned(())
    time = None if row is None else _time(planned, (config, found), row, judge_seconds)
    if as_json:
        import json

        click.echo(json.dumps(as_dict(found) | ({} if time is None else {"time": time.as_dict()}), indent=2))
    else:
        click.echo(report(found, config))
        click.echo("\n".join([HINT] if time is None else time.report()))
    if not found.fits:
        raise SystemExit(1)


def _row(name: str | None) -> Hardware | str | None:
    """The hardware row that is meant, or the word for a measurement; None: no GPU whose data sheet is known. Raises
    `ConfigError` for an unknown name."""
    import torch

    from gymnast_plan.hardware import MEASURED, find_row, row_of

    if name is None:
        return row_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return name if name == MEASURED else find_row(name)


def _time(planned: Planned, here: tuple[RunConfig, Plan], row: Hardware | str, judge_seconds: float | None) -> TimePlan:
    """The time plan of the run `here`."""
    import torch

    from gymnast_openvla_oft.time_plan import TimePlan, changes, read_iteration
    from gymnast_plan.forecast import whole_work
    from gymnast_plan.measure import measure

    is_gpu = torch.cuda.is_available() if isinstance(row, str) else row.is_gpu

    def build(config: RunConfig, plan: Plan) -> Iteration:
        return read_iteration(config, plan, is_gpu=is_gpu, judge_seconds=judge_seconds)

    iteration = build(*here)
    hardware = measure(whole_work(iteration)) if isinstance(row, str) else row
    return TimePlan(iteration, hardware, here[1].machine.gpus, changes(planned, here[0], build))


def read_job(config: RunConfig, strategy: str = "ddp", decisions: int | None = None, views: int | None = None) -> Job:
    """What a run's config means for memory. Raises `ConfigError` for policies that are not planned here."""
    from gymnast_core.plugins.compose import registries
    from gymnast_openvla_oft.dtypes import weights_dtype
    from gymnast_openvla_oft.plan import Job, Networks

    shape, policy, actions, own_views = _policy(config.policy)
    known = registries()
    optimizer = known.optimizers.build(config.optimizer.name, config.optimizer.args, key="optimizer")
    loop, (chunk, width) = config.loop, actions
    views = views or own_views
    trajectory = max(1, loop.horizon // chunk)
    rollouts = loop.tasks_per_iteration * optimizer.group_size
    side = shape.dino.image_size
    return Job(
        networks=Networks(shape),
        dtype=weights_dtype(policy.dtype),
        tuning=policy.train,
        strategy=strategy,
        trajectories=1 if decisions else min(loop.micro_batch_size or optimizer.minibatch_size, rollouts),
        decisions=decisions or trajectory,
        episodes=min(loop.imagine_batch_size, rollouts),
        actions=chunk * width,
        make_optimizer=optimizer.torch_optimizer,
        world=_world(config.world_model),
        views=views,
        causal=config.policy.name == "openvla",
        reference=optimizer.needs_reference,
        mixed=config.trainer.get("precision") == "bf16-mixed",
        check_saved=config.check_saved and strategy == "ddp",
        rollouts=rollouts,
        rollout_bytes=(1 + loop.horizon) * views * side * side * 3,
    )


def _policy(part: ComponentConfig) -> Any:
    """The network's shape, the policy's options, (actions a chunk, dimensions of an action), and images a decision."""
    from gymnast_core.config.typed import typed
    from gymnast_core.errors import ConfigError
    from gymnast_core.plugins.compose import registries
    from gymnast_openvla_oft.architecture import checkpoint_config, model_shape, with_parts
    from gymnast_openvla_oft.base import check_config
    from gymnast_openvla_oft.facts import Parts, find_facts
    from gymnast_openvla_oft.normalisation import choose_statistics
    from gymnast_openvla_oft.weights import read_json

    if part.name not in POLICIES:
        raise ConfigError(f"gymnast plan knows the policies {' and '.join(POLICIES)}, not {part.name!r}.")
    options: Any = typed(registries().policies.load(part.name).Config, part.args, "policy.args")
    check_config(options)
    directory, norm_stats = None, None
    if options.checkpoint is None:
        config = checkpoint_config(options.architecture, 512, options.unnorm_key or "scratch")
    else:
        directory = _small_files(options)
        config = read_json(directory / "config.json")
        statistics = directory / "dataset_statistics.json"
        norm_stats = read_json(statistics) if statistics.is_file() else None
    _, found = choose_statistics(norm_stats or config.get("norm_stats", {}), options.unnorm_key)
    parts = [] if directory is None else [path.name.partition("--")[0] for path in directory.glob("*--*")]
    proprio = getattr(options, "proprio", False) or "proprio_projector" in parts
    shape = with_parts(
        model_shape(config), {}, film=getattr(options, "film", False) or "vision_backbone" in parts,
        proprio_dim=len((found.get("proprio") or {}).get("q01", [])) if proprio else 0,
    )  # fmt: skip
    facts = find_facts(options, config, Parts(), "config.json", parallel=part.name != "openvla")
    width = len(next(iter(found["action"].values())))
    return shape, options, (facts.chunk_length, width), facts.images


def _world(part: ComponentConfig) -> Any:
    """Bytes by purpose for a number of episodes, from the class method `memory_plan(config, episodes)` that a world
    model may define; nothing for those that do not. See `Job.world`."""
    from gymnast_core.config.typed import typed
    from gymnast_core.plugins.compose import registries

    cls: Any = registries().world_models.load(part.name)
    if not hasattr(cls, "memory_plan"):
        return lambda episodes: {}
    options = typed(cls.Config, part.args, "world_model.args")
    return lambda episodes: cls.memory_plan(options, episodes)


def _small_files(options: Any) -> Path:
    """The directory of the network's JSON files: of the model under an adapter, or of the checkpoint itself."""
    from gymnast_openvla_oft.checkpoint import find_directory

    if options.base is not None:
        return find_directory(options.base, None, ["*.json"], key="policy.args.base")
    return find_directory(options.checkpoint, options.revision, ["*.json"])


def _machine(gpus: int | None, gib: float | None, config: RunConfig) -> Machine:
    import os

    import torch

    from gymnast_openvla_oft.plan import GIB, Machine

    asked = config.trainer.get("devices")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = gpus or (asked if isinstance(asked, int) and asked > 0 else max(1, there))
    if gib is None and not there:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Machine(count, memory / GIB / count, is_gpu=False)
    return Machine(count, gib or torch.cuda.get_device_properties(0).total_memory / GIB)


def report(plan: Plan, config: RunConfig) -> str:
    """The plan for people."""
    from gymnast_openvla_oft.plan import FRAGMENTATION, alternatives, suggestions

    job, machine = plan.job, plan.machine
    device = "GPU" if machine.is_gpu else "process on the CPU"
    lines = [
        f"{config.policy.name}: {plan.parameters / 1e9:.3g} billion parameters in {job.dtype}, "
        f"{plan.trained / 1e9:.3g} billion of them learn.",
        f"{machine.gpus} x {machine.gib:.4g} GiB ({device}), {job.strategy}. "
        f"{job.trajectories * job.decisions} decisions a backward pass, {job.episodes} episodes imagined at once.",
        "",
        f"Each {device}, GiB",
    ]
    lines += [_line(f"{item.name}{_when(item.phase)}", item.bytes) for item in plan.device if item.bytes]
    if machine.is_gpu:
        lines.append(_line(f"CUDA, and {FRAGMENTATION:.0%} that the allocator loses", plan.peak - _sum(plan)))
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    lines += [f"{_line('peak', plan.peak)} of {machine.gib:.4g}: {verdict}", "", "Host memory of each process, GiB"]
    lines += [_line(item.name, item.bytes) for item in plan.host if item.bytes]
    if not job.world(1) and config.world_model.name != "gymnasium":
        lines += ["", f"What the world model {config.world_model.name!r} takes is unknown: it defines no memory_plan."]
    lines += ["", f"Peak by what learns, GiB of each {device}", *_table(list(alternatives(plan)))]
    steps = suggestions(plan)
    if steps:
        lines += ["", "To make it fit, change in this order:"]
        lines += [f"  {i}. {name:<45} peak {_gib(after.peak)}" for i, (name, after) in enumerate(steps, 1)]
    if not plan.fits and not (steps and steps[-1][1].fits):
        need = _gib((steps[-1][1] if steps else plan).peak)
        lines += ["", f"It still does not fit: take GPUs of {need} GiB or more, or a smaller world model or policy."]
    return "\n".join(lines)


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan for programs: bytes."""
    from dataclasses import asdict

    from gymnast_openvla_oft.plan import alternatives, suggestions

    return {
        "parameters": plan.parameters,
        "trained": plan.trained,
        "device": [asdict(item) for item in plan.device],
        "host": [asdict(item) for item in plan.host],
        "peak": plan.peak,
        "fits": plan.fits,
        "alternatives": [{"learns": a, "how": b, "peak": c.peak, "fits": c.fits} for a, b, c in alternatives(plan)],
        "suggestions": [{"change": name, "peak": after.peak, "fits": after.fits} for name, after in suggestions(plan)],
    }


def _table(rows: list[tuple[str, str, Plan]]) -> list[str]:
    columns = list(dict.fromkeys(column for _, column, _ in rows))
    lines = [f"  {'':<36}" + "".join(f"{column:>22}" for column in columns)]
    for label in dict.fromkeys(label for label, _, _ in rows):
        cells = [f"{_gib(p.peak)}{' ' if p.fits else '!'}" for name, _, p in rows if name == label]
        lines.append(f"  {label:<36}" + "".join(f"{cell:>22}" for cell in cells))
    return [*lines, "  (! does not fit)"]


def _line(name: str, size: int) -> str:
    return f"  {name:<50}{_gib(size):>10}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}" if size >= 2**27 else f"{size / 2**30:.4f}"


def _when(phase: str) -> str:
    return "" if phase == "always" else f" (while {phase})"


def _sum(plan: Plan) -> int:
    from gymnast_openvla_oft.plan import PHASES

    return plan.phase("always") + max(plan.phase(name) for name in PHASES)
