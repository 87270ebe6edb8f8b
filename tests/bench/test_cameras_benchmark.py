"""What benchmarks/cameras.py measures, on pictures of the simulator, in which blocks are where the test puts them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gymnast_tabletop.geometry import CAMERAS
from gymnast_tabletop.scene import COLOURS, Scene
from gymnast_tabletop.simulation import Tabletop

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import cameras  # noqa: E402

RED, BLUE = COLOURS.index("red"), COLOURS.index("blue")
AT_RED = (0.03, 0.05)
AT_BLUE = (-0.095, -0.095)
EFFECTOR = ((0.08, 0.08), (-0.04, -0.04), (0.0, 0.0))
"""The wrist camera, which spans 0.2 m, shows in these frames: no blue; blue whole, red cut; red whole, blue cut."""


def pictures(blue: tuple[float, float] = AT_BLUE, red: tuple[float, float] = AT_RED) -> dict[str, Tensor]:
    """Frames (1, T, H, W, C) by camera."""
    shown = []
    for effector in EFFECTOR:
        table = Tabletop(n_blocks=2, image_size=32)
        table.reset(Scene(("red", "blue"), np.array([*effector, *red, 0.0, *blue, 0.0])))
        shown.append(torch.from_numpy(table.views(True)))
    return {name: torch.stack(shown)[None, :, v] for v, name in enumerate(CAMERAS)}


def test_pictures_of_one_scene_agree() -> None:
    truth = pictures()
    apart_NTC = cameras.disagreement(truth)
    known = ~np.isnan(apart_NTC[0, 1:])
    assert known.sum() == 2 and known[0, BLUE] and known[1, RED]
    assert np.nanmax(apart_NTC[:, 1:]) < 0.5
    assert cameras.hidden_at_first(truth["wrist"])[0, BLUE] and not cameras.hidden_at_first(truth["wrist"])[0, RED]
    assert cameras.together(apart_NTC, truth).tolist() == [1.0]
    assert cameras.together(apart_NTC, truth, entering=True).tolist() == [1.0]


@pytest.mark.parametrize(("moved", "share"), [(0.004, 1.0), (0.02, 0.5)])
def test_a_block_at_two_places_is_as_far_apart_as_it_was_moved(moved: float, share: float) -> None:
    truth = pictures()
    elsewhere = pictures(blue=(AT_BLUE[0] + moved, AT_BLUE[1]))
    apart_NTC = cameras.disagreement({"front": truth["front"], "wrist": elsewhere["wrist"]})
    assert apart_NTC[0, 1, BLUE] == pytest.approx(100 * moved, abs=0.35)
    assert cameras.together(apart_NTC, truth).tolist() == [share]
    assert cameras.together(apart_NTC, truth, entering=True).tolist() == [2 * share - 1]


def test_a_block_that_one_picture_lost_is_at_no_place() -> None:
    truth = pictures()
    lost = {**truth, "wrist": truth["wrist"].clone()}
    lost["wrist"][:, 1] = truth["wrist"][0, 1, 0, -1]  # the table's colour
    apart_NTC = cameras.disagreement(lost)
    assert np.isnan(apart_NTC[0, 1, BLUE])
    assert cameras.together(apart_NTC, truth).tolist() == [0.5]
    assert cameras.together(apart_NTC, truth, entering=True).tolist() == [0.0]


def test_an_episode_into_whose_view_nothing_comes_says_nothing() -> None:
    truth = pictures(blue=(0.12, -0.125), red=(0.06, 0.03))
    apart_NTC = cameras.disagreement(truth)
    assert np.isnan(cameras.together(apart_NTC, truth, entering=True)).all()


def test_a_colour_that_no_block_has_is_invented() -> None:
    truth = pictures()
    green = truth["wrist"].clone()
    green[:, 2, :4, :4] = torch.tensor([26, 158, 51], dtype=torch.uint8)
    speck = truth["wrist"].clone()
    speck[:, 2, :2, :4] = torch.tensor([26, 158, 51], dtype=torch.uint8)
    shares = [cameras.invented(wrist, truth).tolist() for wrist in (truth["wrist"], green, speck)]
    assert shares == [[0.0], [0.5], [0.0]]


def test_agreement_counts_what_either_picture_shows() -> None:
    truth = pictures()
    assert cameras.agreement(truth).tolist() == [1.0]
    moved = pictures(blue=(AT_BLUE[0] + 0.02, AT_BLUE[1]))
    apart = {"front": truth["front"], "wrist": moved["wrist"]}
    # One of three: red agrees in the last frame; the blue block is counted where each camera shows it.
    assert cameras.agreement(apart) == pytest.approx([1 / 3])


def test_what_is_shown_twice_or_in_a_wrong_colour_is_no_agreement() -> None:
    truth = pictures()
    for rgb in ((26, 158, 51), (219, 33, 33)):  # green, which no block is; red, far from the red block
        ghost = truth["wrist"].clone()
        ghost[:, 2, 22:28, 22:28] = torch.tensor(rgb, dtype=torch.uint8)
        shown = {**truth, "wrist": ghost}
        assert cameras.agreement(shown) == pytest.approx([2 / 3])
        # A block is where its largest blob is: a smaller ghost does not take it away.
        assert cameras.together(cameras.disagreement(shown), truth).tolist() == [1.0]


def test_what_both_pictures_have_lost_is_no_disagreement() -> None:
    truth = pictures()
    table = truth["front"][0, 0, 0, -1]
    bare = {name: frames.clone() for name, frames in truth.items()}
    bare["front"][:, 1, 20:, :14] = table  # the blue block
    bare["wrist"][:, 1] = table
    assert cameras.agreement(bare).tolist() == [1.0]
