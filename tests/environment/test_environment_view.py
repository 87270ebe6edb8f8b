"""How environments are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

from gymnast_core.errors import DataError
from gymnast_core.types import EnvironmentStart
from gymnast_environment.environments import Environments, Live, Sensed
from gymnast_environment.hosting import Hosting
from gymnast_environment.view import View

ID = "gymnast-test/Shown-v0"
PICTURE = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)


class Shown(gymnasium.Env):
    """Observation, infos by step and whether it ends: whatever a test wants."""

    observation: ClassVar[Any] = {"image": PICTURE}
    infos: tuple[dict[str, Any], ...] = ({},)
    ends: int = 99
    task = "put the cup away"

    def __init__(self) -> None:
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.render_mode = None
        self.actions: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: Any = None):
        self.actions = []
        return self.observation, self.infos[0]

    def step(self, action: np.ndarray):
        self.actions.append(action)
        count = len(self.actions)
        return self.observation, 0.0, count == self.ends, False, self.infos[min(count, len(self.infos) - 1)]

    def language(self) -> list[str]:
        return ["push the button"]

    def taken(self) -> list[float]:
        return [float(action[0]) for action in self.actions]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register(ID, entry_point=Shown)
    yield
    gymnasium.registry.pop(ID)


def look(monkeypatch: pytest.MonkeyPatch, view: View, **shown: Any) -> tuple[Environments, Live]:
    for name, value in shown.items():
        monkeypatch.setattr(Shown, name, value)
    environments = Environments(view, Hosting(workers=0), check_resets=False)
    return environments, environments.reset([EnvironmentStart(ID, 0)])[0]


def play(monkeypatch: pytest.MonkeyPatch, view: View, actions: int, **shown: Any) -> list[Sensed]:
    environments, live = look(monkeypatch, view, **shown)
    (seen,) = environments.step([live], [np.zeros((actions, 1), np.float32)])
    assert live.error is None
    return seen


def picture(monkeypatch: pytest.MonkeyPatch, **view: Any) -> np.ndarray:
    return look(monkeypatch, View(**view))[1].sensed.frames_VHWC[0]


def test_pictures_are_turned_and_lose_what_is_not_rgb(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = PICTURE[..., :3]
    assert np.array_equal(picture(monkeypatch), rgb)
    assert np.array_equal(picture(monkeypatch, flip="vertical"), rgb[::-1])
    assert np.array_equal(picture(monkeypatch, flip="horizontal"), rgb[:, ::-1])
    assert np.array_equal(picture(monkeypatch, flip="both"), rgb[::-1, ::-1])
    image = Image.fromarray(rgb)
    for degrees, transpose in ((90, Image.Transpose.ROTATE_90), (270, Image.Transpose.ROTATE_270)):
        assert np.array_equal(picture(monkeypatch, rotate=degrees), np.asarray(image.transpose(transpose)))
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).transpose(Image.Transpose.ROTATE_90)
    assert np.array_equal(picture(monkeypatch, flip="horizontal", rotate=90), np.asarray(mirrored))


@pytest.mark.parametrize(("height", "width"), [(256, 256), (480, 640), (64, 64), (20, 30), (127, 33)])
def test_pictures_are_resized_with_antialiasing(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    monkeypatch.setattr(Shown, "observation", image)
    expected = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(picture(monkeypatch, size=64) - expected).max() <= 1


@pytest.mark.parametrize(
    "observation",
    [
        {"sensor_data": {"front": {"rgb": torch.from_numpy(PICTURE[None])}, "depth": np.zeros(3)}},
        {"sensor_data.front": {"rgb": PICTURE}},
        {"sensor_data": {"front.rgb": [PICTURE]}},
    ],
    ids=["nested, a torch tensor, a batch of one", "a key with a dot", "a list of one"],
)
def test_keys_are_found(observation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sensed = look(monkeypatch, View({"main": "sensor_data.front.rgb"}), observation=observation)[1].sensed
    assert np.array_equal(sensed.frames_VHWC, PICTURE[None, ..., :3])
    assert np.array_equal(picture(monkeypatch, image_key="sensor_data.front.rgb"), PICTURE[..., :3]), (
        "the one picture may be nested, too"
    )


def test_readings_are_put_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    observation = {"image": PICTURE, "robot": {"arm": torch.tensor([[1.0, 2.0]]), "hand": 0.5}}
    view = View(proprio=["robot.hand", "robot.arm"], proprio_dim=3)
    sensed = look(monkeypatch, view, observation=observation)[1].sensed
    assert sensed.proprio_P is not None and sensed.proprio_P.dtype == np.float32
    assert sensed.proprio_P.tolist() == [0.5, 1.0, 2.0]
    with pytest.raises(DataError, match=r"no readings under the key 'robot.leg'; .* robot.arm \(float32 \(1, 2\)\)"):
        look(monkeypatch, View(proprio=["robot.leg"]), observation=observation)


@pytest.mark.parametrize(
    ("key", "instruction"),
    [("task", "put the cup away"), ("language", "push the button"), ("asked.text", "open it"), ("goal", "close it")],
    ids=["attribute", "method", "observation", "info"],
)
def test_instructions(key: str, instruction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {
        "observation": {"image": PICTURE, "asked": {"text": np.array(["open it"])}},
        "infos": ({"goal": b"close it"},),
    }
    assert look(monkeypatch, View(instruction_key=key), **shown)[1].sensed.instruction == instruction
    with pytest.raises(DataError, match=r"no instruction under .wish.*goal"):
        look(monkeypatch, View(instruction_key="wish"), **shown)


REACHED = ({}, {"success": False}, {"success": torch.tensor([True])}, {"success": np.float64(0.25)}, {"other": 1})


def test_success_at_the_end_or_at_any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcomes(**view: Any) -> list[float | None]:
        return [sensed.outcome for sensed in play(monkeypatch, View(**view), 5, infos=REACHED)]

    assert outcomes() == [0.0, 1.0, 0.25, 0.25, 0.25]
    assert outcomes(success="any") == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert outcomes(success_key="metrics.success") == [None] * 5
    ended = play(monkeypatch, View(stop_on_success=True), 5, infos=REACHED)
    assert [sensed.ended for sensed in ended] == [False, True, True, True, True]
    assert [sensed.outcome for sensed in ended] == [0.0, 1.0, 1.0, 1.0, 1.0]


def test_outcomes_of_other_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = ({}, {"hindsight": {"a": True, "b": False}}, {"hindsight": {"a": False, "b": np.True_}}, {})
    for success, expected in (("end", {"a": False, "b": True}), ("any", {"a": True, "b": True})):
        seen = play(monkeypatch, View(outcomes_key="hindsight", success=success), 3, infos=infos)
        assert seen[0].outcomes == {"a": True, "b": False}
        assert seen[2].outcomes == expected


def test_an_action_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    environments, live = look(monkeypatch, View(action_repeat=3, success="any"), infos=REACHED, ends=5)
    actions = np.array([[0.5], [0.25], [0.125]], np.float32)
    (seen,) = environments.step([live], [actions])
    assert environments.call(live, "taken") == [0.5, 0.5, 0.5, 0.25, 0.25]
    assert [sensed.ended for sensed in seen] == [False, True, True]
    assert [sensed.outcome for sensed in seen] == [1.0, 1.0, 1.0]


def test_actions_have_the_space_s_own_type(monkeypatch: pytest.MonkeyPatch) -> None:
    environments, live = look(monkeypatch, View())
    environments.step([live], [np.zeros((1, 1), np.float32)])
    assert live._host._session._environment.unwrapped.actions[0].dtype == np.float64  # type: ignore[attr-defined]
    assert live.about.low_A is not None and live.about.low_A.tolist() == [-1.0] and live.about.fps is None
