"""The success law, feasibility and the language."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gymnast_core.errors import ConfigError
from gymnast_tabletop.instructions import (
    GOALS,
    HELD_OUT,
    INSTRUCTIONS,
    PAIRS,
    TEMPLATES,
    Goal,
    block_index,
    draw_instruction,
    feasible,
    feasible_goals,
    outcomes,
    parse,
    start_scene,
    success,
    successes,
)

COLOURS = ("blue", "red")
moves = st.tuples(*[st.floats(-0.12, 0.12) for _ in range(4)])
red_goals = st.sampled_from([goal for goal in GOALS if goal.colour == "red"])


def states(other_x, other_y, red_x, red_y):
    start = np.array([0.1, 0.1, 0.05, 0.02, 0.1, -0.05, -0.02, 0.2])
    return start, start + np.array([0.3, -0.2, other_x, other_y, 0.5, red_x, red_y, -0.4])


@given(red_goals, moves)
def test_success_is_the_law(goal, move):
    start, end = states(*move)
    other, red = end[2:4] - start[2:4], end[5:7] - start[5:7]
    along = red @ goal.unit
    lateral = np.linalg.norm(red - along * goal.unit)
    law = along > 0.04 and lateral < 0.8 * along and np.hypot(*other) < 0.02
    margins = [along - 0.04, lateral - 0.8 * along, np.hypot(*other) - 0.02]
    if np.abs(margins).min() > 1e-9:
        assert success(goal, COLOURS, start, end) == law


@given(moves)
def test_at_most_one_instruction_comes_true_per_block_and_none_for_two_blocks(move):
    start, end = states(*move)
    done = [goal for goal in GOALS if goal.colour in COLOURS and success(goal, COLOURS, start, end)]
    # 0.8 < 1: a diagonal move cannot count for both of its directions.
    assert len(done) <= 1


@given(red_goals, moves)
def test_success_of_a_batch_is_the_success_of_each(goal, move):
    start, end = states(*move)
    batch = successes(goal, COLOURS, np.stack([start, start]), np.stack([end, start]))
    assert batch.tolist() == [success(goal, COLOURS, start, end), False]


def test_every_wording_parses_to_its_goal():
    for goal in GOALS:
        for template in TEMPLATES:
            text = template.format(colour=goal.colour, direction=goal.direction)
            assert parse(text) == parse(f"  {text.capitalize()}. ") == goal
    assert len(set(INSTRUCTIONS)) == 16


def test_unknown_instructions_say_what_exists():
    with pytest.raises(ConfigError, match="Did you mean 'push the red block to the left'"):
        parse("push the red blok to the left")
    with pytest.raises(ConfigError, match="No green block on this table"):
        block_index(Goal("green", "left"), COLOURS)


def test_feasible_goals_leave_room_to_succeed():
    for seed in range(50):
        scene = start_scene(seed, 2)
        assert feasible_goals(scene, "training")
        for goal in feasible_goals(scene):
            block = scene.state[2:].reshape(-1, 3)[scene.colours.index(goal.colour), :2]
            assert block @ goal.unit + 0.04 < 0.128
            assert goal.colour in scene.colours


def test_a_block_in_the_lane_makes_a_goal_infeasible():
    free = np.array([0.0, 0.1, 0.0, -0.1, 0.0, 0.0, 0.0, 0.0])
    blocked = free.copy()
    blocked[2:4] = [0.09, 0.0]
    goal = Goal("red", "right")
    assert feasible(goal, COLOURS, np.stack([free, blocked])).tolist() == [True, False]
    assert not feasible(Goal("green", "right"), COLOURS, free)


def test_held_out_pairs_are_never_drawn_for_training_yet_their_words_are():
    drawn = {parse(draw_instruction(seed, start_scene(seed, 2))) for seed in range(400)}
    assert drawn == set(PAIRS["training"])
    assert drawn.isdisjoint(HELD_OUT)
    assert {goal.colour for goal in HELD_OUT} <= {goal.colour for goal in drawn}
    assert {goal.direction for goal in HELD_OUT} <= {goal.direction for goal in drawn}


@given(moves, moves)
def test_all_outcomes_together_are_those_one_by_one(red, blue):
    start = np.zeros(8)
    end = np.array([0.0, 0.0, blue[0], blue[1], blue[2], red[0], red[1], red[2]])
    found = outcomes(COLOURS, start, end)
    assert found == {goal: success(goal, COLOURS, start, end) for goal in GOALS if goal.colour in COLOURS}
