"""Seconds of an iteration, from a run's config: what `gymnast plan` says beside memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import cache, partial
from typing import Any

from gymnast_core.config import ComponentConfig, RunConfig
from gymnast_core.config.typed import typed
from gymnast_core.plugins.compose import registries
from gymnast_core.training.record import SNAPSHOT_SHARE
from gymnast_openvla_oft.attention import AUTO
from gymnast_openvla_oft.plan import Plan, knows_features
from gymnast_openvla_oft.work import Policy, stepping
from gymnast_plan.forecast import GPUS, PARTS, Change, Forecast, Iteration, Judging, forecast, next_change
from gymnast_plan.hardware import Hardware
from gymnast_plan.work import Work

Planned = Callable[[Sequence[str]], tuple[RunConfig, Plan]]
"""The config with further overrides, and the plan of its memory."""
CHANGES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("world_model", "compute_dtype=bfloat16", ("imagine",), "frames differ by bfloat16's rounding"),
    ("world_model", "horizon=null", ("imagine",), "the frames of a chunk are denoised together"),
    ("world_model", "guidance=1", ("imagine",), "imagines without guidance"),
    ("world_model", "streaming=true", ("imagine",), "no longer exact once the window slides"),
    ("policy", "dtype=bfloat16", ("act", "update"), "weights are bfloat16 beside float32 copies"),
    ("policy", "train.checkpointing=false", ("update",), "takes more memory"),
    ("policy", "train.vision=frozen", ("update",), "the vision towers learn no more"),
    ("policy", "train.lora_rank=32", ("update", "transfer", "snapshot"), "LoRA factors learn alone"),
    ("reward_model", "concurrency=64", ("judge",), "as far as the service allows"),
)
"""Arguments that save time: of which part of a run, which parts of an iteration they shorten, and what else they do."""


def read_iteration(config: RunConfig, plan: Plan, *, is_gpu: bool, judge_seconds: float | None = None) -> Iteration:
    """What an iteration of the run computes and moves; `plan` is of its memory."""
    job, loop = plan.job, config.loop
    optimizer = registries().optimizers.build(config.optimizer.name, config.optimizer.args, key="optimizer")
    chunk = max(1, loop.horizon // job.decisions)
    policy = Policy(
        job.networks.shape, job.dtype, job.tuning, job.actions, job.views, job.mixed, knows_features(job), job.causal,
        attention=_attention(config.policy, is_gpu),
    )  # fmt: skip
    trained = [p for p in job.networks.model(job.dtype, job.tuning).parameters() if p.requires_grad]
    act, learn = job.networks.acting(policy), job.networks.learning(policy)
    held = {item.name: item.bytes for item in plan.device}
    learned = sum(p.nbytes for p in trained)
    return Iteration(
        groups=loop.tasks_per_iteration,
        group_size=optimizer.group_size,
        together=loop.imagine_batch_size,
        decisions=job.decisions,
        minibatch=optimizer.minibatch_size,
        micro=job.trajectories,
        epochs=optimizer.epochs,
        world=_world(config, job.decisions * chunk, chunk, is_gpu),
        act=act,
        update=lambda rollouts: learn(rollouts * job.decisions),
        step=stepping(trained, job.make_optimizer),
        judging=_judging(config.reward_model, judge_seconds),
        gradient_bytes=held["gradients"],
        frame_bytes=job.rollout_bytes,
        snapshot_bytes=learned + held["optimizer state"] + held.get("float32 copies of what learns", 0),
        snapshot_every=config.checkpoint_every,
        snapshot_share=config.checkpoint_share or SNAPSHOT_SHARE,
    )


def changes(planned: Planned, config: RunConfig, build: Callable[[RunConfig, Plan], Iteration]) -> Iterator[Change]:
    """What may be changed of this run, whether or not it changes anything."""
    for section, setting, parts, effect in CHANGES:
        if _takes(section, getattr(config, section), setting.partition("=")[0].partition(".")[0]):
            override = f"{section}.args.{setting}"
            yield Change(override, effect, parts, partial(_rebuilt, planned, override, build))
    half = config.loop.imagine_batch_size // 2
    if half:
        override = f"loop.imagine_batch_size={half}"
        effect = "the judge works while the next batch is imagined"
        yield Change(override, effect, ("judge",), partial(_rebuilt, planned, override, build))


def _attention(part: ComponentConfig, is_gpu: bool) -> str:
    """The kernel that the policy takes there; networks without content are on a CPU, where "auto" means another."""
    options: Any = typed(registries().policies.load(part.name).Config, part.args, "policy.args")
    return "sdpa" if is_gpu and options.attention == AUTO else str(options.attention)


def _rebuilt(planned: Planned, override: str, build: Callable[[RunConfig, Plan], Iteration]) -> Iteration:
    return build(*planned([override]))


class TimePlan:
    """The forecasts of one run on one kind of hardware."""

    def __init__(self, iteration: Iteration, hardware: Hardware, gpus: int, possible: Iterable[Change]) -> None:
        self.iteration, self.hardware, self.gpus = iteration, hardware, gpus
        wanted = sorted({*GPUS, gpus}) if hardware.is_gpu else [1]
        self.forecasts = [forecast(iteration, hardware, count) for count in wanted]
        self.mine = next((f for f in self.forecasts if f.gpus == gpus), self.forecasts[0])
        self.next = next_change(iteration, hardware, self.mine.gpus, possible)

    def report(self) -> list[str]:
        """For people."""
        hardware = self.hardware
        kind = "measured here" if hardware.measured else "a prediction from a data sheet, not measured"
        lines = ["", f"Seconds of an iteration on {hardware.name}: {kind} ({hardware.source})"]
        lines.append("  " + f"{'GPUs' if hardware.is_gpu else 'CPU':<6}" + "".join(f"{name:>10}" for name in PARTS)
                     + f"{'together':>10}")  # fmt: skip
        lines += [_row(found) for found in self.forecasts]
        if self.iteration.judging is None:
            lines.append("  The judge's time is unknown: say --judge-seconds, of one rollout's answers.")
        if not self.iteration.world(1):
            lines.append("  The world model's time is unknown: it defines no work_plan.")
        idle = next((found for found in self.forecasts if found.idle), None)
        if idle is not None:
            lines.append(f"  From {idle.gpus} GPUs on, some have no group: raise loop.tasks_per_iteration.")
        return [*lines, *self._advice()]

    def _advice(self) -> Iterator[str]:
        mine = self.mine
        share = mine.parts[mine.bottleneck] / mine.total if mine.total else 0.0
        count = f"With {mine.gpus} GPU{'s' if mine.gpus > 1 else ''}" if self.hardware.is_gpu else "Here"
        yield f"{count}, {mine.bottleneck} takes most: {share:.0%}."
        if self.next is not None:
            change, after = self.next
            effect = f" ({change.effect})" if change.effect else ""
            yield f"Next: {change.setting}{effect}: {_seconds(mine.total)} -> {_seconds(after.total)} s."
        elif self.hardware.is_gpu and mine.gpus < self.iteration.groups:
            after = forecast(self.iteration, self.hardware, 2 * mine.gpus)
            yield f"Next: {after.gpus} GPUs: {_seconds(mine.total)} -> {_seconds(after.total)} s."

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        found: dict[str, Any] = {
            "hardware": self.hardware.name,
            "source": self.hardware.source,
            "measured": self.hardware.measured,
            "forecasts": [{"gpus": f.gpus, "seconds": dict(f.parts), "total": f.total} for f in self.forecasts],
            "bottleneck": self.mine.bottleneck,
            "next": None,
        }
        if self.next is not None:
            change, after = self.next
            found["next"] = {"change": change.setting, "effect": change.effect, "total": after.total}
        return found


def _world(config: RunConfig, frames: int, chunk: int, is_gpu: bool) -> Callable[[int], dict[str, Work]]:
    """From the class method `work_plan(config, frames, chunk, is_gpu, judged)` that a world model may define, `judged`
    being the places of the frames that the judge looks at: a function of the episodes imagined at once that gives the
    work (`gymnast_plan.work`) of "imagine" and "decode"."""
    part, known = config.world_model, registries()
    cls: Any = known.world_models.load(part.name)
    if not hasattr(cls, "work_plan"):
        return lambda episodes: {}
    judge = known.reward_models.load(config.reward_model.name)
    options: Any = typed(judge.Config, config.reward_model.args, "reward_model.args")
    judged = judge.looks_at(options, 1 + frames)
    return cache(cls.work_plan(typed(cls.Config, part.args, "world_model.args"), frames, chunk, is_gpu, judged))


def _judging(part: ComponentConfig, seconds: float | None) -> Judging | None:
    """A judge whose answers about a rollout take so long; how many it asks at once is what its config says."""
    if seconds is None:
        return None
    options: Any = typed(registries().reward_models.load(part.name).Config, part.args, "reward_model.args")
    together = getattr(options, "concurrency", None) or 1
    limit = getattr(options, "requests_per_minute", None) or float("inf")
    return Judging(seconds, together=together, per_minute=limit)


def _takes(section: str, part: ComponentConfig, argument: str) -> bool:
    known = registries()
    registry: Any = {
        "world_model": known.world_models, "policy": known.policies, "reward_model": known.reward_models
    }[section]  # fmt: skip
    return argument in {item.name for item in fields(registry.load(part.name).Config)}


def _row(found: Forecast) -> str:
    cells = "".join(f"{_seconds(found.parts[name]):>10}" for name in PARTS)
    return f"  {found.gpus:<6}{cells}{_seconds(found.total):>10}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 99.5 else f"{seconds:.3g}"
