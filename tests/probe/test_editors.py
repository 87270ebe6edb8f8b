"""Providers against real servers on this machine and a real (tiny) diffusion pipeline."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from editing_server import Server, png
from PIL import Image

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.types import Task
from gymnast_probe.interfaces import EditorFailed, EditorSpent
from gymnast_probe.library import build_edit, edit_task
from gymnast_probe.openai_editor import OpenAIEditor
from gymnast_probe.proposed_instructions import read_instructions

IMAGE = np.zeros((16, 16, 3), np.uint8)
IMAGE[:, :8] = (200, 40, 40)
TASK = Task("task-1", "push the red block to the left", torch.from_numpy(IMAGE)[None, None])


def image_editor(server: Server, **settings: Any) -> OpenAIEditor:
    return OpenAIEditor(OpenAIEditor.Config(base_url=server.url, size="64x64", max_retries=0, **settings))


def test_the_images_api_gets_the_picture_and_gives_the_edited_one(server: Server) -> None:
    args = {"base_url": server.url, "size": "64x64"}
    settings = {"edit": "generated-image", "prompt": "Mirror it, but {instruction}.", "args": args}
    edit = build_edit("flip", settings)
    edit.prepare()
    found = edit_task(edit, "flip", TASK, 0)
    edit.close()
    path, fields = server.requests[0]
    assert path == "/v1/images/edits" and fields["model"] == "gpt-image-1" and fields["size"] == "64x64"
    assert fields["prompt"] == "Mirror it, but push the red block to the left."
    frame = found.task.view()[0].numpy().astype(int)
    assert frame.shape == (16, 16, 3) and found.judged == TASK.instruction and found.cost_usd == 0.042
    assert np.abs(frame[:, 1:7]).max() < 30 and np.abs(frame[:, 9:15] - (200, 40, 40)).max() < 30


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            (400, {"error": {"message": "your prompt was rejected", "code": "moderation_blocked"}}),
            "prompt was rejected",
        ),
        ((200, {"created": 1, "data": []}), "returned no picture"),
        ((200, {"created": 1, "data": [{"b64_json": base64.b64encode(b"no picture").decode()}]}), "no picture"),
    ],
)
def test_what_is_no_picture_is_an_error(server: Server, answer: tuple[int, Any], message: str) -> None:
    server.answer = lambda fields: answer
    editor = image_editor(server)
    with pytest.raises(EditorFailed, match=message) as caught:
        editor.edit(IMAGE, "x", seed=0)
    # What the service refused is not billed; a picture that cannot be used is.
    assert caught.value.cost_usd == editor.spent_usd == (0.0 if answer[0] == 400 else 0.042)


def test_an_edited_picture_is_upright_and_of_8_bits(server: Server) -> None:
    def answered(image: Image.Image, **options: Any) -> str:
        buffer = io.BytesIO()
        image.save(buffer, "PNG", **options)
        return base64.b64encode(buffer.getvalue()).decode()

    exif = Image.Exif()
    exif[0x0112] = 3  # half a turn
    levels = np.zeros((16, 16, 3), np.uint8)
    levels[:8] = 255
    content = answered(Image.fromarray(levels), exif=exif)
    server.answer = lambda fields: (200, {"created": 1, "data": [{"b64_json": content}]})
    found = image_editor(server).edit(IMAGE, "x", seed=0).images_HWC
    assert found is not None and found[10:].min() > 200 and found[:6].max() < 50
    content = answered(Image.fromarray(np.full((16, 16), 3000, np.uint16)))
    with pytest.raises(EditorFailed, match="no picture of 8 bits a colour"):
        image_editor(server).edit(IMAGE, "x", seed=0)


def test_edits_stop_before_they_cost_too_much(server: Server) -> None:
    editor = image_editor(server, usd_per_image=0.4, max_usd=1.0)
    for _ in range(2):
        assert editor.edit(IMAGE, "x", seed=0).cost_usd == 0.4
    with pytest.raises(EditorSpent, match=r"spent \$0.80 of max_usd=1.*--resume RUN"):
        editor.edit(IMAGE, "x", seed=0)
    assert len(server.requests) == 2


def test_a_key_is_asked_for_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="export OPENAI_API_KEY"):
        build_edit("x", {"edit": "generated-image", "prompt": "x"}).prepare()
    with pytest.raises(ConfigError, match="export OPENAI_API_KEY"):
        build_edit("x", {"edit": "proposed-instruction"}).prepare()


def test_a_model_proposes_instructions_from_the_picture(server: Server) -> None:
    said = 'Sure:\n["Push the red block to the LEFT.", "push the red block to the top.", "push  the black block"]'
    server.answer = lambda fields: (
        200,
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}]},
    )  # fmt: skip
    edit = build_edit("other", {"edit": "proposed-instruction", "args": {"base_url": server.url, "count": 3}})
    found = {edit_task(edit, "other", TASK, seed).judged for seed in range(8)}
    edit.close()
    assert found == {"push the red block to the top", "push the black block"}
    content = server.requests[0][1]["messages"][0]["content"]
    assert '"push the red block to the left"' in content[0]["text"] and "Propose 3" in content[0]["text"]
    sent = Image.open(io.BytesIO(base64.b64decode(content[1]["image_url"]["url"].partition(",")[2])))
    assert sent.size == (256, 256) and sent.getpixel((10, 10)) == (200, 40, 40)


@pytest.mark.parametrize("said", ["I cannot.", "[1, 2]", '{"a": 1}', "[]", '["push it."]', '["unfinished'])
def test_anything_but_new_instructions_is_an_error(said: str) -> None:
    with pytest.raises(EditorFailed, match="instruction editor"):
        read_instructions(said, "Push it")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An InstructPix2Pix pipeline with random weights, small enough for a test."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionInstructPix2PixPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("pipeline")
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=1,
        max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=32,
    )  # fmt: skip
    made = StableDiffusionInstructPix2PixPipeline(
        vae=AutoencoderKL(
            block_out_channels=(32, 64), in_channels=3, out_channels=3, latent_channels=4, sample_size=32,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77),
        unet=UNet2DConditionModel(
            block_out_channels=(32, 64), layers_per_block=1, sample_size=16, in_channels=8, out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=8,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=32, attention_head_dim=8,
        ),
        scheduler=DDIMScheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    torch.random.set_rng_state(torch_state)
    made.save_pretrained(folder / "saved", safe_serialization=True)
    return folder / "saved"


def test_a_diffusers_pipeline_edits_the_picture_by_the_seed(pipeline: Path) -> None:
    args = {"model": str(pipeline), "device": "cpu", "side": 32, "steps": 2}
    settings = {"edit": "generated-image", "editor": "diffusers", "prompt": "add a cup", "args": args}
    edit = build_edit("cup", settings)
    edit.prepare()
    first, again, other = (edit_task(edit, "cup", TASK, seed).task.frames_TVHWC for seed in (0, 0, 1))
    edit.close()
    assert first.shape == (1, 1, 16, 16, 3) and first.dtype == torch.uint8
    assert (first == again).all() and (first != other).any()


def test_a_pipeline_that_cannot_be_loaded_is_one_clear_error(tmp_path: Path) -> None:
    args = {"model": str(tmp_path), "device": "cpu"}
    edit = build_edit("cup", {"edit": "generated-image", "editor": "diffusers", "prompt": "x", "args": args})
    with pytest.raises(CheckpointError, match="is no diffusers pipeline"):
        edit_task(edit, "cup", TASK, 0)


def test_every_policy_meets_the_picture_that_was_paid_for(
    server: Server, gymnast: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    from evaluation_parts import WORLD, policy

    shades = iter(range(10, 250, 10))

    def another(fields: dict[str, Any]) -> tuple[int, Any]:
        """Never the same picture twice, and no answer to the third request."""
        if len(server.requests) == 3:
            return 400, {"error": {"message": "overloaded"}}
        return 200, {"created": 1, "data": [{"b64_json": png(np.full((64, 64, 3), next(shades), np.uint8))}]}

    server.answer = another
    args = f"{{base_url: '{server.url}', size: 64x64, max_retries: 0}}"
    line = [
        "probe", f"policies.first={policy(0)}", f"world_model={WORLD}", "reward_model={name: random}", "horizon=2",
        "tasks={name: tabletop, args: {count: 4, image_size: 32}}", "videos=0", f"output={tmp_path / 'run'}",
        f"edits.cup={{edit: generated-image, prompt: add a cup, args: {args}}}",
    ]  # fmt: skip
    code, _, err = gymnast(*line)
    assert code == 0, err
    code, _, err = gymnast("probe", "--resume", tmp_path / "run", f"policies.second={policy(1)}")
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "run/results.jsonl").read_text().splitlines()]
    cups = {(row["policy"], row["index"]): row for row in rows if row["world"] == "cup"}
    # Four pictures were asked for, and again the one that had failed.
    assert len(server.requests) == 5
    assert cups["first", 2]["value"] is None and "overloaded" in cups["first", 2]["error"]
    assert cups["second", 2]["value"] is not None
    costs = [cups[name, index]["cost_usd"] for name in ("first", "second") for index in range(4)]
    assert costs == [0.042, 0.042, 0.0, 0.042, 0.0, 0.0, 0.042, 0.0]
    assert len(list((tmp_path / "run/generated/cup").glob("*.png"))) == 4
