"""What each edit changes, and what it leaves."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gymnast_core.errors import ConfigError, DataError, PluginError
from gymnast_core.types import EnvironmentStart, Episode, Task
from gymnast_probe.colours import to_hsv, to_rgb, visible_colours
from gymnast_probe.interfaces import Edited, NotApplicable
from gymnast_probe.library import EDITS, build_edit, edit_task

SIZE = 32


def picture(left: tuple[int, int, int] = (220, 30, 30), right: tuple[int, int, int] = (30, 60, 220)) -> torch.Tensor:
    """Two blocks on a grey table, (1, 1, H, W, 3)."""
    frame = torch.full((SIZE, SIZE, 3), 190, dtype=torch.uint8)
    frame[12:20, 4:12], frame[12:20, 20:28] = (torch.tensor(c, dtype=torch.uint8) for c in (left, right))
    return frame[None, None]


def task(instruction: str = "push the red block to the left", **changes: Any) -> Task:
    start = EnvironmentStart("gymnast/Tabletop-v0", seed=3, options={"instruction": instruction})
    values = {"frames_TVHWC": picture(), "start": start, **changes}
    return Task("task-1", instruction, **values)


def edited(name: str, of: Task | None = None, seed: int = 0, **settings: Any) -> Edited:
    return edit_task(build_edit(name, {"edit": name, **settings}), name, of or task(), seed)


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=20))
def test_hsv_is_that_of_the_standard_library(colours: list[tuple[int, int, int]]) -> None:
    image = np.array([colours], dtype=np.uint8)
    expected = [colorsys.rgb_to_hsv(*(part / 255 for part in colour)) for colour in colours]
    difference = np.abs(to_hsv(image)[0] - np.array(expected))
    difference[:, 0] = np.minimum(difference[:, 0], 1 - difference[:, 0])  # hue is a circle
    assert difference.max() < 1e-4
    assert np.abs(to_rgb(to_hsv(image)).astype(int) - image).max() <= 1


def test_visible_colours_are_named_as_people_do() -> None:
    assert visible_colours(picture()[0, 0].numpy()) == ["red", "blue"]
    assert set(visible_colours(picture((20, 150, 50), (250, 210, 20))[0, 0].numpy())) == {"green", "yellow"}
    assert visible_colours(np.full((8, 8, 3), 127, np.uint8)) == []


def test_a_paraphrase_means_the_same_and_is_judged_by_the_original() -> None:
    for seed in range(20):
        found = edited("paraphrase", seed=seed)
        assert found.task.instruction != found.judged == "push the red block to the left"
        assert "red" in found.task.instruction and "left" in found.task.instruction
        assert (found.task.frames_TVHWC == task().frames_TVHWC).all()
    with pytest.raises(NotApplicable):
        edited("paraphrase", task("wave"), frame=False)


def test_other_goals_are_judged_by_what_is_asked_for_then() -> None:
    colour = edited("other-colour")
    assert colour.task.instruction == colour.judged == "push the blue block to the left"
    assert colour.task.start is not None
    assert (colour.task.start.seed, dict(colour.task.start.options)) == (3, {"instruction": colour.judged})
    assert edited("other-goal").judged == "push the red block to the right"
    one = edited("other-object", task("put the red cup on the plate"), objects=["cup", "red cup", "spoon"])
    assert one.judged in ("put the spoon on the plate", "put the cup on the plate")


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("other-colour", task("wave")),
        ("other-colour", task(frames_TVHWC=picture(right=(190, 190, 190)))),
        ("other-object", task()),
        ("other-goal", task("wave")),
        ("swap", task(frames_TVHWC=picture(right=(190, 190, 190)))),
        ("recolour", task(frames_TVHWC=torch.full((1, 1, 8, 8, 3), 99, dtype=torch.uint8))),
        ("brightness", task(frames_TVHWC=torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8))),
    ],
)
def test_an_edit_that_makes_no_sense_says_so(name: str, of: Task) -> None:
    with pytest.raises(NotApplicable):
        edited(name, of)


def test_nonsense_has_no_word_of_the_original() -> None:
    found = edited("nonsense")
    assert not set(found.task.instruction.split()) & set(task().instruction.split())
    assert len(found.task.instruction.split()) == 7 and found.judged == task().instruction


@pytest.mark.parametrize("name", ["distractor", "recolour", "swap", "occlude", "brightness", "crop"])
def test_pictures_change_by_the_seed_and_nothing_else_does(name: str) -> None:
    original = task(frames_TVHWC=torch.cat([picture(), picture()]), actions_TA=torch.zeros(1, 2))
    found = edited(name, original)
    assert found.task.frames_TVHWC.dtype == torch.uint8 and found.task.frames_TVHWC.shape == (2, 1, SIZE, SIZE, 3)
    assert (found.task.frames_TVHWC != original.frames_TVHWC).any()
    assert (found.task.frames_TVHWC[0] == found.task.frames_TVHWC[1]).all()  # all context frames alike
    assert found.judged == found.task.instruction == original.instruction
    assert (original.frames_TVHWC == torch.cat([picture(), picture()])).all()
    assert (edited(name, original).task.frames_TVHWC == found.task.frames_TVHWC).all()
    if name not in ("swap", "brightness"):
        others = [edited(name, original, seed=seed).task.frames_TVHWC for seed in range(1, 5)]
        assert any((other != found.task.frames_TVHWC).any() for other in others)


def test_every_camera_is_edited_as_the_main_one_suggests() -> None:
    plain = torch.full_like(picture(), 190)
    both = task(frames_TVHWC=torch.cat([picture(), 255 - picture()], dim=1), cameras=("front", "wrist"))
    found = edited("brightness", both, factor=0.5).task
    assert found.cameras == both.cameras and found.frames_TVHWC.shape == both.frames_TVHWC.shape
    assert found.view("wrist").max() == 112  # half of 255 - 30
    hidden = task(frames_TVHWC=torch.cat([plain, picture()], dim=1), cameras=("front", "wrist"))
    with pytest.raises(NotApplicable, match="does not show two colours"):
        edited("swap", hidden)


def test_what_was_known_of_the_old_goal_goes_with_it() -> None:
    expert = Episode("e", "push the red block to the left", picture(), torch.zeros(0, 2))
    known = task(expert=expert, partial_credit_criteria="half way")
    other = edited("other-goal", known).task
    assert other.expert is None and other.partial_credit_criteria is None
    assert edited("brightness", known).task.expert is expert


def test_a_swap_puts_each_colour_where_the_other_was() -> None:
    found = edited("swap").task.view()[0].numpy()
    assert visible_colours(found[:, :16]) == ["blue"] and visible_colours(found[:, 16:]) == ["red"]
    assert (found[:10] == 190).all()


def test_recolouring_leaves_what_is_named_and_takes_a_new_colour() -> None:
    for seed in range(6):
        found = edited("recolour", seed=seed).task.view()[0].numpy()
        assert (found[:, :16] == picture()[0, 0, :, :16].numpy()).all()  # the instruction is about the red block
        (new,) = visible_colours(found[:, 16:])
        assert new not in ("red", "blue")


def test_a_distractor_has_a_soft_edge_and_its_size() -> None:
    plain = torch.full((1, 1, 100, 100, 3), 128, dtype=torch.uint8)
    changed = (edited("distractor", task(frames_TVHWC=plain), size=0.3).task.view()[0] != 128).any(-1).numpy()
    rows, columns = np.nonzero(changed)
    assert 24 <= np.ptp(rows) + 1 <= 30 and 24 <= np.ptp(columns) + 1 <= 30
    hard = edited("distractor", task(frames_TVHWC=plain), size=0.3, softness=0.0).task.view()[0].int()
    soft = edited("distractor", task(frames_TVHWC=plain), size=0.3, softness=0.5).task.view()[0].int()
    steps = [int((image[1:] - image[:-1]).abs().max()) for image in (hard, soft)]
    assert steps[1] < steps[0] / 2


def test_a_distractor_can_come_from_a_folder(tmp_path: Path) -> None:
    rgba = np.zeros((20, 20, 4), np.uint8)
    rgba[:, :10] = (255, 0, 255, 255)  # the right half is transparent
    Image.fromarray(rgba).save(tmp_path / "thing.png")
    plain = torch.full((1, 1, 100, 100, 3), 128, dtype=torch.uint8)
    found = edited("distractor", task(frames_TVHWC=plain), size=0.4, folder=str(tmp_path)).task.view()[0].numpy()
    changed = (found != 128).any(-1)
    assert 500 < changed.sum() < 900  # half of 40 x 40
    assert found[changed].max(0)[[0, 2]].tolist() == [255, 255] and found[changed].min(0)[1] == 0
    with pytest.raises(DataError, match="holds no PNG or JPEG"):
        edited("distractor", folder=str(tmp_path / "nothing"))


def test_crop_enlarges_and_occlusion_covers() -> None:
    found = edited("crop", share=0.5, of=task(frames_TVHWC=picture())).task.view()[0].numpy()
    assert found.shape == (SIZE, SIZE, 3)
    grey = (edited("occlude", size=0.5).task.view()[0] == 128).all(-1)
    assert int(grey.sum()) == 12 * 12  # 16 pixels a side, less an edge of 1.6
    assert edited("brightness", factor=0.5).task.frames_TVHWC.max() == 110


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("blur", {}, ConfigError, "edits.blur: No edit 'blur'"),
        ("crop", {"shrae": 0.5}, ConfigError, "edits.crop.shrae.*Did you mean 'share'"),
        ("generated-image", {}, ConfigError, "edits.generated-image.prompt"),
    ],
)
def test_unknown_edits_and_settings_are_one_clear_error(
    name: str, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build_edit(name, {"edit": name, **settings})


def test_an_unknown_provider_is_one_clear_error() -> None:
    edit = build_edit("generated-image", {"edit": "generated-image", "prompt": "x", "editor": "opnai"})
    with pytest.raises(PluginError, match=r"No image editor 'opnai'\. Did you mean 'openai'"):
        edit.prepare()


def test_every_edit_has_a_name_and_a_docstring() -> None:
    assert len(EDITS) == 13
    assert all(edit.__doc__ and not edit.__doc__.startswith(f"{edit.__name__}(") for edit in EDITS.values())


def test_a_distractor_is_upright(tmp_path: Path) -> None:
    """Its lower half is red as a viewer shows it, which the file holds as its right half."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    levels = np.zeros((20, 20, 3), np.uint8)
    levels[:, 10:] = (255, 0, 0)
    Image.fromarray(levels).save(tmp_path / "turned.png", exif=exif)
    plain = torch.full((1, 1, SIZE, SIZE, 3), 120, dtype=torch.uint8)
    found = edited("distractor", task(frames_TVHWC=plain), size=0.6, folder=str(tmp_path)).task.view()[0].numpy()
    red, black = (found[..., 0] > 200), (found[..., 0] < 60)
    assert red.any() and black.any()
    assert np.argwhere(red)[:, 0].mean() > np.argwhere(black)[:, 0].mean() + 2
    assert abs(np.argwhere(red)[:, 1].mean() - np.argwhere(black)[:, 1].mean()) < 1
