"""Parts that do not fit each other are refused by both their names, before any of them is built."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from gymnast_core.config import ComponentConfig, LoopConfig, RunConfig
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.plugins import compose
from gymnast_core.processes import Processes
from gymnast_core.testing.making import make_tasks

PLUGINS = '''
"""Parts that say at once what they need and offer, and must not be built."""
from dataclasses import dataclass, field
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Dataset, Optimizer, Policy, RewardModel, WorldModel
from gymnast_core.types import Needs, Offers

BUILT = []

def named(cameras):
    return tuple(cameras) if len(cameras) > 1 or cameras[0] != "any" else 1

@dataclass(frozen=True)
class Sees:
    cameras: list[str] = field(default_factory=lambda: ["any"])
    proprio: int | None = None
    history: int = 1

class Built:
    api_version = 2

    def __init__(self, config):
        BUILT.append(type(self).__name__)
        self.config = config

class Looks(Built, Policy):
    Config = Sees
    chunk_length, action_dim = 2, 2

    def __init__(self, config):
        Policy.__init__(self)
        BUILT.append("Looks")
        self.config = config

    @classmethod
    def needs(cls, config):
        return Needs(named(config.cameras), config.history, config.proprio)

    def act(self, *arguments, **options): raise NotImplementedError
    def evaluate(self, *arguments, **options): raise NotImplementedError

class Shows(Built, WorldModel):
    Config = Sees

    @classmethod
    def offers(cls, config):
        return Offers(named(config.cameras), config.proprio)

    def reset(self, *arguments, **options): raise NotImplementedError
    def step(self, *arguments, **options): raise NotImplementedError

class Judge(Built, RewardModel):
    Config = type("Config", (Sees,), {})
    preflights = []

    def score(self, rollouts): raise NotImplementedError
    def preflight(self, rollouts, frames): self.preflights.append((rollouts, frames))

class Learns(Built, Optimizer):
    Config = Sees
    group_size, epochs, minibatch_size, max_grad_norm = 4, 1, 1, 1.0

    def __init__(self, config):
        super().__init__(config)
        self.demonstrations_per_rollout = float(config.proprio or 0)

    def torch_optimizer(self, *arguments): raise NotImplementedError
    def learning_rate(self, *arguments): raise NotImplementedError
    def keep(self, *arguments): raise NotImplementedError
    def advantages(self, *arguments): raise NotImplementedError
    def loss(self, *arguments): raise NotImplementedError

@dataclass(frozen=True)
class Count:
    count: int = 2
    cameras: list[str] = field(default_factory=lambda: ["front", "wrist"])
    proprio: int | None = None

class Starts(Built, Dataset):
    Config = Count

    def tasks(self):
        from gymnast_core.testing.making import make_tasks
        return make_tasks(self.config.count, 8, cameras=self.config.cameras, proprio_dim=self.config.proprio)

    def episodes(self):
        return []
'''
ENTRIES = """
[gymnast.policies]
looks = compose_parts:Looks
[gymnast.world_models]
shows = compose_parts:Shows
[gymnast.reward_models]
judge = compose_parts:Judge
[gymnast.optimizers]
learns = compose_parts:Learns
[gymnast.datasets]
starts = compose_parts:Starts
"""


@pytest.fixture
def built(site_packages: Any, fresh: None):
    """The names of what was built so far."""
    site_packages.add("compose-parts", ENTRIES, {"compose_parts.py": PLUGINS})
    import compose_parts

    yield compose_parts.BUILT
    sys.modules.pop("compose_parts")


def policy(**args: Any) -> ComponentConfig:
    return ComponentConfig("looks", args)


def world(**args: Any) -> ComponentConfig:
    return ComponentConfig("shows", args)


FRONT_AND_WRIST = ["front", "wrist"]


@pytest.mark.parametrize(
    ("needs", "offers", "starts", "said"),
    [
        (
            {"cameras": ["front", "gripper"]},
            {"cameras": FRONT_AND_WRIST},
            {},
            "The policy 'looks' needs the cameras front, gripper, but the world model 'shows' shows the cameras front, "
            "wrist: gripper is lacking.",
        ),
        (
            {},
            {"cameras": FRONT_AND_WRIST},
            {},
            r"The policy 'looks' needs 1 camera, but the world model 'shows' shows the cameras front, wrist. Say which "
            r"ones it is to see \(policy.args.cameras=",
        ),
        (
            {"cameras": FRONT_AND_WRIST},
            {},
            {},
            "The world model 'shows' imagines 1 camera, but the tasks of 'starts' show the cameras front, wrist.",
        ),
        (
            {"cameras": FRONT_AND_WRIST},
            {"cameras": ["front", "side"]},
            {},
            "The world model 'shows' shows the cameras front, side, but the tasks of 'starts' show the cameras front, "
            "wrist: without side, no rollout can start.",
        ),
        (
            {"cameras": FRONT_AND_WRIST, "proprio": 7},
            {"cameras": FRONT_AND_WRIST},
            {"proprio": 7},
            "The policy 'looks' needs 7 proprioceptive readings at each frame, but the world model 'shows' offers no "
            "proprioception.",
        ),
        (
            {"cameras": FRONT_AND_WRIST, "proprio": 7},
            {"cameras": FRONT_AND_WRIST, "proprio": 7},
            {"proprio": 3},
            "The policy 'looks' needs 7 .*, but the tasks of 'starts' begin with 3 proprioceptive readings.",
        ),
    ],
)
def test_what_lacks_is_said_with_both_sides_and_nothing_is_built(
    built: list[str], needs: dict[str, Any], offers: dict[str, Any], starts: dict[str, Any], said: str
) -> None:
    (task,) = make_tasks(1, 8, cameras=FRONT_AND_WRIST, proprio_dim=starts.get("proprio"))
    with pytest.raises(ConfigError, match=said):
        compose.check_needs(policy(**needs), world(**offers), task, "starts")
    config = run(policy(**needs), world(**offers), ComponentConfig("starts", starts))
    with pytest.raises(ConfigError, match=said):
        compose.build_parts(config, left=1, processes=Processes())
    assert set(built) == {"Learns", "Starts"}, "neither the policy, nor the world model, nor the judge"


def test_what_fits_passes(built: list[str]) -> None:
    (task,) = make_tasks(1, 8, cameras=FRONT_AND_WRIST, proprio_dim=3)
    compose.check_needs(policy(cameras=["wrist", "front"]), world(cameras=FRONT_AND_WRIST), task, "starts")
    one = world(cameras=["wrist", "front"], proprio=3)
    compose.check_needs(policy(cameras=FRONT_AND_WRIST, proprio=3, history=4), one, task, "starts")
    assert built == []


def test_an_argument_that_does_not_fit_is_named_by_its_place(built: list[str]) -> None:
    (task,) = make_tasks(1, 8)
    with pytest.raises(ConfigError, match=r"^policies\.old\.args\.camera: No key 'camera'"):
        compose.check_needs(policy(camera="x"), world(), task, "starts", keys=("policies.old", "worlds.real"))
    with pytest.raises(ConfigError, match=r"^worlds\.real\.args\.camera: No key 'camera'"):
        compose.check_needs(policy(), world(camera="x"), task, "starts", keys=("policies.old", "worlds.real"))


def run(policy: ComponentConfig, world: ComponentConfig, starts: ComponentConfig, **fields: Any) -> RunConfig:
    parts = {"policy": policy, "world_model": world, "tasks": starts, "reward_model": ComponentConfig("judge")}
    given = {"optimizer": ComponentConfig("learns"), "loop": LoopConfig(tasks_per_iteration=3, horizon=8), **fields}
    return RunConfig(**{**parts, **given})


FITTING = (policy(cameras=FRONT_AND_WRIST), world(cameras=FRONT_AND_WRIST), ComponentConfig("starts"))


def test_a_judge_may_refuse_before_policy_and_world_are_built(built: list[str]) -> None:
    parts = compose.build_parts(run(*FITTING), left=5, processes=Processes())
    assert built[-2:] == ["Looks", "Shows"] and built.index("Judge") < built.index("Looks")
    assert parts.reward_model is not None
    # 5 iterations of 3 groups of 4 rollouts; a start frame and one an action.
    assert type(parts.reward_model).preflights == [(5 * 3 * 4, 9)]  # type: ignore[attr-defined]
    assert parts.components().keys() == {"policy", "world_model", "reward_model", "optimizer"}
    assert len(parts.tasks) == 2 and parts.config is not None


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"optimizer": ComponentConfig("learns", {"proprio": 1})}, ConfigError, "mixes in demonstrations; set demonst"),
        (
            {"optimizer": ComponentConfig("learns", {"proprio": 1}), "demonstrations": ComponentConfig("starts")},
            DataError,
            "The dataset 'starts' holds no demonstrations.",
        ),
        ({"tasks": ComponentConfig("starts", {"count": 0})}, DataError, "The dataset 'starts' holds no tasks."),
        ({"hooks": {"nobody": {}}}, ConfigError, "hooks.nobody: No section 'nobody'"),
    ],
)
def test_what_can_be_refused_is_refused_before_anything_heavy(
    built: list[str], fields: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=re.escape(said)):
        compose.build_parts(run(*FITTING, **fields), left=1, processes=Processes())
    assert "Looks" not in built and "Shows" not in built
