"""Which frames a judge sees, and what makes two questions the same."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from judging import compatible_judge, make_rollout, openai_judge
from PIL import Image

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.types import Offers
from gymnast_vlm_reward.frames import FramesConfig, digest
from gymnast_vlm_reward.loopback import LoopbackServer
from gymnast_vlm_reward.prompts import load_prompt


@given(total=st.integers(1, 400), stride=st.integers(1, 60))
def test_a_stride_keeps_the_first_and_the_last_frame(total: int, stride: int) -> None:
    chosen = FramesConfig(stride=stride).select(total)
    assert chosen[0] == 0 and chosen[-1] == total - 1 and chosen == sorted(set(chosen))
    assert all(after - before == stride for before, after in itertools.pairwise(chosen[:-1]))


@given(total=st.integers(1, 400), count=st.integers(2, 60))
def test_a_count_spreads_that_many_frames_evenly(total: int, count: int) -> None:
    chosen = FramesConfig(stride=None, count=count).select(total)
    assert len(chosen) == min(count, total) == len(set(chosen))
    assert chosen[0] == 0 and chosen[-1] == total - 1
    gaps = np.diff(chosen)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"stride": 3, "count": 4}, "either"),
        ({"stride": None}, "either"),
        ({"stride": 0}, "stride"),
        ({"size": 2}, "size"),
    ],
)
def test_settings_that_select_nothing_are_refused(fields: dict[str, int | None], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        FramesConfig(**fields).check("reward_model.args.frames")


def test_frames_are_lossless_and_scaled_by_their_longer_side() -> None:
    frames_THWC = torch.randint(0, 256, (3, 20, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exact = FramesConfig(size=None).encode(frames_THWC[2:3])[0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(exact))), frames_THWC[2].numpy())
    scaled = FramesConfig(size=80).encode(frames_THWC[:1])[0]
    assert Image.open(io.BytesIO(scaled)).size == (80, 40) == FramesConfig(size=80).scaled(40, 20)


def test_frames_are_compressed_quickly_and_named_by_their_pixels() -> None:
    frames_THWC = torch.randint(0, 256, (2, 20, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frames_THWC[:, 10:] = 7
    usual = io.BytesIO()
    Image.fromarray(frames_THWC[1].numpy()).save(usual, "PNG", compress_level=1)
    assert FramesConfig(size=None).encode(frames_THWC[1:2]) == [usual.getvalue()]
    # Answers that older versions remembered are found by this name, whatever the file's bytes.
    assert digest(frames_THWC[1:2]) == sha256(b"(1, 20, 40, 3)" + frames_THWC[1].numpy().tobytes()).hexdigest()


def test_each_frame_is_encoded_once_for_all_votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    once = FramesConfig._png
    monkeypatch.setattr(FramesConfig, "_png", lambda self, frame: encoded.append(1) or once(self, frame))
    with LoopbackServer() as server:
        judge = compatible_judge(server, tmp_path, structured=False, votes=3)
        assert judge.score([make_rollout(0, True)])[0].value is not None
        judge.close()
    assert len(server.log) == 3 and len(encoded) == 3


def test_frames_are_numbered_and_stand_between_question_and_form() -> None:
    with LoopbackServer() as server:
        judge = compatible_judge(server, Path("unused"), structured=False)
        parts = judge.question(make_rollout(0, True)).parts()
    assert [type(part) for part in parts] == [str, *[str, bytes] * 3, str]
    assert "push the red block to the left" in parts[0]
    assert parts[1::2][:3] == [f"Frame {i} of 3 (time step {step}):" for i, step in ((1, 0), (2, 3), (3, 6))]
    assert "Final Score: X" in parts[-1] and "0 or 1" in parts[-1]


def test_the_tasks_criteria_and_rubrics_reach_the_judge() -> None:
    prompt, task = load_prompt("partial-v1"), make_rollout(0, True, partial_credit_criteria="the block {moved}.").task
    assert "0.5 - partly fulfilled: the block {moved}." in prompt.ask(task, {}, schema=True)[0]
    assert prompt.criteria in prompt.ask(replace(task, partial_credit_criteria=None), {}, schema=True)[0]
    own = prompt.ask(task, {task.instruction: "1 - blue. 0.5 - {criteria}"}, schema=True)[0]
    assert "1 - blue. 0.5 - the block {moved}." in own and "partly fulfilled" not in own
    by_id = {task.id: "by id", task.instruction: "by instruction"}
    assert "by id" in prompt.ask(task, by_id, schema=True)[0]


def test_an_unknown_prompt_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'binary-v1'"):
        load_prompt("binary-v2")


def test_whatever_an_answer_depends_on_is_in_the_key() -> None:
    with LoopbackServer() as server:
        rollout = make_rollout(0, True)

        def key(judged=rollout, **args) -> str:
            return compatible_judge(server, Path("unused"), **args).question(judged).key

        other_frames = rollout.frames_TVHWC.clone()
        other_frames[3, 0, 0, 0] += 1
        keys = [
            key(),
            key(replace(rollout, frames_TVHWC=other_frames)),
            key(replace(rollout, task=replace(rollout.task, instruction="push the blue block"))),
            key(prompt="partial-v1"),
            key(model="another"),
            key(temperature=0.5),
            key(max_tokens=20),
            key(structured=False),
            key(frames=FramesConfig(size=32)),
            key(frames=FramesConfig(stride=2, size=16)),
            key(rubrics={rollout.task.id: "1 - always"}),
            key(namespace="since the update"),
            key(extra={"top_p": 0.5}),
        ]
        assert len(set(keys)) == len(keys)
        # Neither frames that are not shown, nor how votes are counted, nor who the task is change the question.
        unseen = rollout.frames_TVHWC.clone()
        unseen[1] += 1
        same = [
            key(replace(rollout, frames_TVHWC=unseen)),
            key(votes=9, tie="failure", seed=4, concurrency=2),
            key(replace(rollout, task=replace(rollout.task, id="x"))),
        ]
        assert set(same) == {keys[0]}


def test_a_judge_looks_at_the_camera_that_it_is_told_to(tmp_path: Path) -> None:
    """The last frame is bright (a success) for one of two cameras alone."""
    bright, dark = make_rollout(0, True), make_rollout(0, False)
    cameras = ("front", "wrist")
    task = replace(bright.task, frames_TVHWC=torch.cat([bright.task.frames_TVHWC] * 2, 1), cameras=cameras)
    both = torch.cat([bright.frames_TVHWC, dark.frames_TVHWC], 1)
    rollout = replace(bright, task=task, frames_TVHWC=both, cameras=cameras)
    with LoopbackServer() as server:
        values = {}
        for camera in (None, "front", "wrist", "wrst"):
            judge = openai_judge(server, tmp_path, camera=camera)
            (reward,) = judge.score([rollout])
            values[camera] = reward.value if reward.error is None else reward.error
            judge.close()
        assert len(server.log) == 2  # the main camera is the front one: nobody asks twice
        main = openai_judge(server, tmp_path).question(rollout)
        assert main.key == openai_judge(server, tmp_path).question(bright).key
        misled = openai_judge(server, tmp_path, camera="wrst")
    assert (values[None], values["front"], values["wrist"]) == (1.0, 1.0, 0.0)
    assert values["wrst"] == "No camera 'wrst'. Did you mean 'wrist'? Known: front, wrist."
    assert misled.estimate(1, 7).requests == 1

    class World:
        config = None

        @staticmethod
        def offers(config: object) -> Offers:
            return Offers(cameras=2)

    with pytest.raises(ConfigError, match=r"reward_model.args.camera: No camera 'wrst'. Did you mean 'wrist'"):
        misled.attach(Parts(world_model=World(), tasks=[task]))  # type: ignore[arg-type]
    openai_judge(server, tmp_path, camera="wrist", probe=False).attach(Parts(world_model=World(), tasks=[task]))  # type: ignore[arg-type]
