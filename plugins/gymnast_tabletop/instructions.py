"""What can be asked for on the table, when it counts as done, and when it can be done at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gymnast_core.errors import ConfigError, unknown_name
from gymnast_tabletop.scene import (
    BLOCK_LIMIT,
    BLOCK_SIZE,
    COLOURS,
    EFFECTOR_LIMIT,
    EFFECTOR_RADIUS,
    Scene,
    sample_scene,
)

DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "top": (0.0, 1.0),
    "bottom": (0.0, -1.0),
}
"""Unit vectors in the world frame (x right, y up)."""

TEMPLATES = (
    "push the {colour} block to the {direction}",
    "move the {colour} block to the {direction}",
    "slide the {colour} cube to the {direction}",
    "shove the {colour} block towards the {direction}",
    "take the {colour} block and push it to the {direction}",
)
"""The first is the one that data sets use; the others paraphrase it, for tests of language."""

MIN_DISPLACEMENT = 0.04
"""Metres along the direction, at the end of the horizon."""
MAX_LATERAL_RATIO = 0.8
MAX_OTHER_DISPLACEMENT = 0.02
"""Metres that every other block may move."""

BEHIND = BLOCK_SIZE / 2 + EFFECTOR_RADIUS + 0.013
"""Distance between the block's centre and that of an end-effector about to push it, metres."""
_ROOM_AHEAD = 0.055
_CORRIDOR = 0.075
"""Half-width of the lane that must be free of other blocks' centres, metres."""


@dataclass(frozen=True)
class Goal:
    """A parsed instruction."""

    colour: str
    direction: str

    @property
    def unit(self) -> NDArray[np.float64]:
        return np.array(DIRECTIONS[self.direction])

    @property
    def instruction(self) -> str:
        """The base instruction of this goal."""
        return TEMPLATES[0].format(colour=self.colour, direction=self.direction)


GOALS = tuple(Goal(colour, direction) for colour in COLOURS for direction in DIRECTIONS)
INSTRUCTIONS = tuple(goal.instruction for goal in GOALS)
HELD_OUT = (Goal("blue", "left"), Goal("yellow", "top"))
"""Pairs that no training task and no demonstration names; every colour and direction occurs in other
pairs."""
PAIRS: dict[str, tuple[Goal, ...]] = {
    "training": tuple(goal for goal in GOALS if goal not in HELD_OUT),
    "held-out": HELD_OUT,
    "all": GOALS,
    **{f"{goal.colour}-{goal.direction}": (goal,) for goal in HELD_OUT},
}
"""Named sets; "blue-left" and "yellow-top" are the held-out pairs one by one, so that one can be trained and the other
asked for."""

_PARSED = {
    template.format(colour=goal.colour, direction=goal.direction): goal for template in TEMPLATES for goal in GOALS
}


def parse(instruction: str) -> Goal:
    """The goal of an instruction (any template; case, spaces and a final full stop do not matter).

    Raises `ConfigError` for anything else.
    """
    goal = _PARSED.get(re.sub(r"\s+", " ", instruction).strip().rstrip(".").lower())
    if goal is None:
        raise ConfigError(unknown_name("tabletop instruction", instruction, INSTRUCTIONS))
    return goal


def pairs(name: str) -> tuple[Goal, ...]:
    """The goals of a named set, one of `PAIRS`."""
    if name not in PAIRS:
        raise ConfigError(unknown_name("set of colour-direction pairs", name, PAIRS))
    return PAIRS[name]


def block_index(goal: Goal, colours: Sequence[str]) -> int:
    """Which block a goal names. Raises `ConfigError` when that colour is not on the table."""
    if goal.colour not in colours:
        raise ConfigError(
            f"No {goal.colour} block on this table (colours: {', '.join(colours)}). "
            "Name one of these, or reset with another seed."
        )
    return list(colours).index(goal.colour)


def successes(
    goal: Goal, colours: Sequence[str], starts: NDArray[np.floating], ends: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """Whether a goal is fulfilled between states (..., S) and (..., S), bool (...).

    The named block moved more than 4 cm along the direction and less than 0.8 times that across it; every
    other block moved less than 2 cm.
    """
    named = block_index(goal, colours)
    moved = np.asarray(ends, np.float64)[..., 2:] - np.asarray(starts, np.float64)[..., 2:]
    moved = moved.reshape(*moved.shape[:-1], len(colours), 3)[..., :2]
    across = np.array([-goal.unit[1], goal.unit[0]])
    along, lateral = moved[..., named, :] @ goal.unit, np.abs(moved[..., named, :] @ across)
    others = np.delete(np.linalg.norm(moved, axis=-1), named, axis=-1).max(axis=-1)
    return (along > MIN_DISPLACEMENT) & (lateral < MAX_LATERAL_RATIO * along) & (others < MAX_OTHER_DISPLACEMENT)


def success(goal: Goal, colours: Sequence[str], start: NDArray[np.floating], end: NDArray[np.floating]) -> bool:
    """`successes` of a single pair of states."""
    return bool(successes(goal, colours, start, end))


def outcomes(colours: Sequence[str], start: NDArray[np.floating], end: NDArray[np.floating]) -> dict[Goal, bool]:
    """`success` of every goal about a block on the table, between two states; cheaper than one by one."""
    moved = (np.asarray(end, np.float64) - np.asarray(start, np.float64))[2:].reshape(-1, 3)[:, :2]
    distances = np.linalg.norm(moved, axis=-1).tolist()
    found = {}
    for named, (colour, (x, y)) in enumerate(zip(colours, moved.tolist(), strict=True)):
        undisturbed = max(distances[:named] + distances[named + 1 :]) < MAX_OTHER_DISPLACEMENT
        for direction, (right, up) in DIRECTIONS.items():
            along, lateral = right * x + up * y, abs(right * y - up * x)
            done = undisturbed and along > MIN_DISPLACEMENT and lateral < MAX_LATERAL_RATIO * along
            found[Goal(colour, direction)] = bool(done)
    return found


def feasible(goal: Goal, colours: Sequence[str], states: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether a goal can be reached from states (..., S), bool (...).

    Its block is there, has room ahead and behind, and its lane is free of other blocks.
    """
    states = np.asarray(states, np.float64)
    if goal.colour not in colours:
        return np.zeros(states.shape[:-1], bool)
    named = list(colours).index(goal.colour)
    blocks = states[..., 2:].reshape(*states.shape[:-1], len(colours), 3)[..., :2]
    block = blocks[..., named, :]
    room = block @ goal.unit + _ROOM_AHEAD <= BLOCK_LIMIT
    room &= np.abs(block - goal.unit * BEHIND).max(axis=-1) <= EFFECTOR_LIMIT
    offsets = np.delete(blocks, named, axis=-2) - block[..., None, :]
    along, lateral = offsets @ goal.unit, np.abs(offsets @ np.array([-goal.unit[1], goal.unit[0]]))
    in_lane = (lateral < _CORRIDOR) & (along > -BEHIND - BLOCK_SIZE) & (along < _ROOM_AHEAD + 1.5 * BLOCK_SIZE)
    return room & ~in_lane.any(axis=-1)


def feasible_goals(scene: Scene, among: str = "all") -> tuple[Goal, ...]:
    """The goals of a named set of pairs that can be reached from a scene."""
    return tuple(goal for goal in pairs(among) if feasible(goal, scene.colours, scene.state))


def start_scene(seed: int, n_blocks: int) -> Scene:
    """The scene of a seed: the first random one in which some training instruction is feasible.

    It does not depend on the instruction that is then given.
    """
    rng = np.random.default_rng([seed, n_blocks])
    while True:
        scene = sample_scene(rng, n_blocks)
        if feasible_goals(scene, "training"):
            return scene


def draw_instruction(seed: int, scene: Scene, among: str = "training") -> str:
    """The base instruction that a seed draws among the feasible ones of a named set.

    Raises `ConfigError` when none is feasible; of "training" there always is one in a `start_scene`.
    """
    goals = feasible_goals(scene, among)
    if not goals:
        raise ConfigError(f"No {among} instruction is feasible in the scene of seed {seed}. Take another seed.")
    return goals[np.random.default_rng([seed, 77]).integers(len(goals))].instruction
