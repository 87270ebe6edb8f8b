"""The config of every stage of a round, made from the config of the whole and from what earlier stages left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gymnast_collect.config import CollectConfig
from gymnast_core.config import ComponentConfig, RunConfig
from gymnast_core.plugins.compose import registries
from gymnast_core.seeds import seed_of
from gymnast_dyna.config import DynaConfig, RefitConfig
from gymnast_dyna.refit import SECTIONS, Refit, built, loaded_from, plain
from gymnast_environment.families import Family
from gymnast_episodes.conversion import Conversion
from gymnast_episodes.writers import WriterOptions
from gymnast_evaluation.config import EvaluateConfig

SEEDS_APART = 1_000_000
"""From the first seed of an environment in one round to that in the next."""


@dataclass(frozen=True)
class Parts:
    """What a round works with: the newest of each."""

    policy: ComponentConfig
    world_model: ComponentConfig
    reward_model: ComponentConfig

    def with_checkpoint(self, key: str, path: Path) -> Parts:
        """The same parts, one of them loaded from another checkpoint."""
        part: ComponentConfig = getattr(self, key)
        return replace(self, **{key: loaded_from(part, path)})


def collect_config(config: DynaConfig, parts: Parts, number: int, folder: Path) -> CollectConfig:
    """The policy of the round before, in the environments. Every round begins with seeds of its own."""
    assert config.collect is not None
    actor = {"kind": "policy", "policy": plain(parts.policy), "temperature": config.temperature}
    values = {**config.collect, "actor": actor, "seed": _seed(config, number), "output": str(folder)}
    first_round = built(CollectConfig, values, "collect")
    return replace(first_round, environments=[_later(family, number) for family in first_round.environments])


def _later(family: Family, number: int) -> Family:
    """The family with the seeds of a round: a million after those of the round before."""
    return replace(family, first=family.first + SEEDS_APART * (number - 1))


def imagined_of(config: DynaConfig, parts: Parts, number: int, folder: Path) -> Conversion:
    """What the policy of the round before does in the world model of this one, to be kept as a recording."""
    assert config.judge is not None and config.judge.imagined is not None
    name = "imagined-episodes"
    args = {
        **config.judge.imagined, "policy": plain(parts.policy), "world_model": plain(parts.world_model),
        "seed": _seed(config, number),
    }  # fmt: skip
    built(registries().datasets.load(name).Config, args, "judge.imagined")
    return Conversion(name, args, "lerobot-v3", folder, WriterOptions(frames="png"))


def refit_of(
    config: DynaConfig,
    key: str,
    parts: Parts,
    recordings: Sequence[Path],
    number: int,
    folder: Path,
    imagined: Sequence[Path] = (),
) -> Refit:
    """A part goes on learning from earlier episodes and from the recordings of all rounds so far; a judge also from
    what policies `imagined`.

    `key` is "world_model" or "reward_model".
    """
    section = SECTIONS[key]
    how: RefitConfig = getattr(config, section)
    part: ComponentConfig = getattr(parts, key)
    seed = _seed(config, number)
    return Refit(how, key, part, parts.world_model, recordings, seed, folder, section, config.hooks, imagined)


def train_config(config: DynaConfig, parts: Parts, number: int, folder: Path) -> RunConfig:
    """Reinforcement learning with the newest parts."""
    values = {
        **config.train, "policy": plain(parts.policy), "world_model": plain(parts.world_model),
        "reward_model": plain(parts.reward_model), "hooks": config.hooks, "seed": _seed(config, number),
        "output": str(folder),
    }  # fmt: skip
    return built(RunConfig, values, "train")


def evaluate_config(config: DynaConfig, policies: Mapping[str, ComponentConfig], folder: Path) -> EvaluateConfig:
    """All policies so far, on the same tasks and seeds."""
    values = {
        **config.evaluate, "policies": {label: plain(part) for label, part in policies.items()},
        "hooks": config.hooks, "seed": config.seed, "output": str(folder),
    }  # fmt: skip
    return built(EvaluateConfig, values, "evaluate")


def _seed(config: DynaConfig, number: int) -> int:
    """Every round of every seed draws its own."""
    return seed_of(config.seed, "dyna", number)
