"""What coarse number formats cost in learning: the gain of GRPO in bfloat16, beside that of the same steps in float32.

    python benchmarks/precision.py [--seeds 0 1] [--output benchmarks/results/precision.md]

The tabletop's policy, its weights rounded to bfloat16 first, as published checkpoints are: from there every way starts
alike. Rollouts are imagined and judged once a seed; each way takes twenty gradient steps on the same ones, in the same
order. The gain is that of the mean log-probability of the actions that were rewarded (those with a positive advantage),
each way measured by itself, as the policy is live and after it was saved and loaded again. Exit code 1 if a way gains
less than 0.95 of what float32 gains.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gymnast_core.config import RunConfig, load_config
from gymnast_core.interfaces import Optimizer, Policy
from gymnast_core.learning import Judged
from gymnast_core.plugins.compose import build_parts, registries
from gymnast_core.processes import Alone
from gymnast_core.rollouts.batch import decisions, temperatures
from gymnast_core.rollouts.deal import Group
from gymnast_core.training.collect import Collector
from gymnast_core.training.tally import Tally
from gymnast_core.training.tasks import TaskOrder
from gymnast_core.training.update import Updater
from gymnast_core.types import Rollout

ENOUGH = 0.95
UPDATES = 20
EPOCHS = 4
GROUPS = 15
SETTINGS = [
    "evaluation.tasks=null", "loop.tasks_per_iteration=24", f"loop.groups_per_update={GROUPS}", "loop.horizon=8",
    "loop.max_draws=20", f"optimizer.args.epochs={EPOCHS}", "optimizer.args.group_size=8",
    f"optimizer.args.minibatch_size={GROUPS * 8 * EPOCHS // UPDATES}", "optimizer.args.warmup_updates=0",
    "optimizer.args.learning_rate_decay_updates=null",
]  # fmt: skip
WEIGHTS_RATE, LORA_RATE, RANK = 5e-6, 5e-4, 32
"""GRPO's default rate, and OpenVLA-OFT's for LoRA (arXiv 2502.19645)."""


@dataclass(frozen=True)
class Way:
    """How numbers are kept while learning."""

    name: str
    rate: float
    args: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "32-true"
    beside: str = "float32"
    """Name of the way that it is to equal."""


LORA = {"lora_rank": RANK}
WAYS = (
    Way("float32", WEIGHTS_RATE),
    Way("bfloat16 weights, float32 copies", WEIGHTS_RATE, {"dtype": "bfloat16"}),
    Way("float32 weights, bf16-mixed", WEIGHTS_RATE, precision="bf16-mixed"),
    Way("LoRA, float32 base", LORA_RATE, {"train": LORA}, beside="LoRA, float32 base"),
    Way("LoRA, bfloat16 base", LORA_RATE, {"train": LORA, "dtype": "bfloat16"}, beside="LoRA, float32 base"),
)


@dataclass(frozen=True)
class Gain:
    """Summed over rewarded factors of actions, nats."""

    live: float
    saved: float
    factors: int


class Silent:
    """Nobody is told."""

    def imagined(self, rollouts: Sequence[Rollout]) -> None: ...

    def judged(self, rollouts: Sequence[Rollout], rewards: Sequence[Any]) -> None: ...


def config_of(checkpoint: Path, way: Way, seed: int) -> RunConfig:
    config = load_config(RunConfig, "tabletop", [*SETTINGS, f"optimizer.args.learning_rate={way.rate}", f"seed={seed}"])
    args = {**config.policy.args, "checkpoint": str(checkpoint), **way.args}
    return replace(config, policy=replace(config.policy, args=args))


def coarse_checkpoint(folder: Path) -> Path:
    """The tabletop's policy with weights that bfloat16 holds, stored in float32."""
    source = Path(load_config(RunConfig, "tabletop").policy.args["checkpoint"])
    shutil.copytree(source, folder)
    weights = {name: x.bfloat16().float() for name, x in load_file(source / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def collect(config: RunConfig) -> list[Group]:
    """Judged groups with a signal, imagined by the float32 policy."""
    parts = build_parts(config, left=None, processes=Alone())
    parts.attach()
    assert parts.policy is not None and parts.world_model is not None
    assert parts.reward_model is not None and parts.optimizer is not None
    order = TaskOrder(parts.tasks, config.seed)
    collector = Collector(
        parts.policy.eval(), parts.world_model, parts.reward_model, parts.optimizer, order, config.loop, config.seed,
        parts.processes,
    )  # fmt: skip
    return collector.collect(0, 0, Tally(), Silent())


def build(config: RunConfig) -> tuple[Policy, Optimizer]:
    known = registries()
    policy: Policy = known.policies.build(config.policy.name, config.policy.args, key="policy").eval()
    return policy, known.optimizers.build(config.optimizer.name, config.optimizer.args, key="optimizer")


@torch.no_grad()
def log_prob(policy: Policy, rollouts: Sequence[Rollout]) -> Tensor:
    """float32 (B, N, L, D) of the rollouts' own actions."""
    device = torch.device("cpu")
    observation, chunk = decisions(rollouts, policy.needed, device)
    found = policy.evaluate(observation, chunk, temperature=temperatures(rollouts, device)).log_prob_BLD
    return found.reshape(len(rollouts), -1, *found.shape[1:])


def as_if_acted(groups: Sequence[Group], log_prob_BNLD: Tensor) -> list[Group]:
    """The groups with the log-probabilities of the policy that learns: ratios begin at one, as in a run."""
    rows = iter(log_prob_BNLD)
    return [
        replace(group, rollouts=tuple(replace(rollout, log_prob_NLD=next(rows)) for rollout in group.rollouts))
        for group in groups
    ]


def learn(way: Way, checkpoint: Path, groups: Sequence[Group], seed: int, folder: Path) -> Gain:
    """Twenty gradient steps, and what they gained."""
    config = config_of(checkpoint, way, seed)
    policy, optimizer = build(config)
    rollouts = tuple(rollout for group in groups for rollout in group.rollouts)
    rewards = tuple(reward for group in groups for reward in group.rewards)
    judged = Judged(rollouts, rewards, optimizer.group_size)
    rewarded_BS = (optimizer.advantages(judged).advantages_BS > 0) & judged.mask_BS
    before = log_prob(policy, rollouts)
    updater = Updater(
        policy, {}, optimizer, (), seed=seed, micro_batch_size=None, precision=way.precision, processes=Alone()
    )
    updater.torch_optimizer = optimizer.torch_optimizer(updater.parameters)
    updater.update(as_if_acted(groups, before), 0, Tally())
    assert updater.updates == UPDATES, f"{updater.updates} steps were taken"
    policy.save(folder)
    again, _ = build(config_of(folder, replace(way, args={k: x for k, x in way.args.items() if k != "train"}), seed))
    gains = [(log_prob(one, rollouts) - before).flatten(1, 2)[rewarded_BS] for one in (policy, again)]
    live, saved = (float(gain.double().sum()) for gain in gains)
    return Gain(live, saved, gains[0].numel())


def measure(seeds: Sequence[int]) -> dict[str, Gain]:
    """The gains of every way, over all seeds."""
    found: dict[str, list[Gain]] = {way.name: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        checkpoint = coarse_checkpoint(Path(name) / "start")
        for seed in seeds:
            groups = collect(config_of(checkpoint, WAYS[0], seed))
            assert len(groups) == GROUPS, f"only {len(groups)} groups carry a signal"
            for number, way in enumerate(WAYS):
                found[way.name].append(learn(way, checkpoint, groups, seed, Path(name) / f"{seed}-{number}"))
                print(f"seed {seed}, {way.name}: {found[way.name][-1]}", file=sys.stderr, flush=True)
    return {
        way: Gain(sum(g.live for g in gains), sum(g.saved for g in gains), sum(g.factors for g in gains))
        for way, gains in found.items()
    }


def ratios(gains: Mapping[str, Gain]) -> dict[str, tuple[float, float]]:
    """Of each way, live and saved, to what the float32 way that it is to equal gains live."""
    beside = {way.name: gains[way.beside].live for way in WAYS}
    return {name: (gain.live / beside[name], gain.saved / beside[name]) for name, gain in gains.items()}


def page(gains: Mapping[str, Gain], seeds: Sequence[int], seconds: float) -> str:
    found = ratios(gains)
    policy, _ = build(config_of(Path(load_config(RunConfig, "tabletop").policy.args["checkpoint"]), WAYS[0], 0))
    millions = sum(p.numel() for p in policy.parameters()) / 1e6
    factors = next(iter(gains.values())).factors
    rows = [
        f"| {way.name} | {way.rate:g} | {gains[way.name].live / factors:.4f} | {found[way.name][0]:.3f} "
        f"| {found[way.name][1]:.3f} |"
        for way in WAYS
    ]
    seeds_given = " ".join(map(str, seeds))
    machine = f"{torch.get_num_threads()} threads on {platform.machine()}, torch {torch.__version__}"
    return f"""# Learning in coarse number formats

`python benchmarks/precision.py --seeds {seeds_given}`; {seconds:.0f} s with {machine}.

A policy of {millions:.2f} million parameters, its weights rounded to bfloat16 at the start. {UPDATES} GRPO steps
on {GROUPS} groups of 8 imagined rollouts of 8 actions a seed, {len(seeds)} seeds; LoRA of rank {RANK}. The gain is that
of the mean log-probability of the rewarded actions' factors (n = {factors}), in nats. The ratio is to what the float32
way of the same kind gains live; the script fails below {ENOUGH}.

| way | learning rate | gain, live | ratio, live | ratio, saved and loaded |
|---|---|---|---|---|
{chr(10).join(rows)}

Other machines add up in another order: expect other digits of the gains, and ratios that differ by one or two
hundredths; what bfloat16 rounds in a pass is noise. Of LoRA the saved policy is the merged one.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "precision.md")
    options = parser.parse_args()
    torch.set_num_threads(2)
    began = time.monotonic()
    gains = measure(options.seeds)
    options.output.write_text(page(gains, options.seeds, time.monotonic() - began))
    low = {name: pair for name, pair in ratios(gains).items() if min(pair) < ENOUGH}
    for name, (live, saved) in ratios(gains).items():
        print(f"{name}: {live:.3f} live, {saved:.3f} saved")
    if low:
        sys.exit(f"Below {ENOUGH}: {', '.join(low)}.")


if __name__ == "__main__":
    main()
