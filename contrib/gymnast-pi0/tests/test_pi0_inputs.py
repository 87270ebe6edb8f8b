"""Pictures against Pillow, statistics against openpi's formulas."""

import json

import numpy as np
import pytest
import torch
from gymnast_core.errors import CheckpointError, ConfigError, DataError
from pi0_checkpoints import STATISTICS, VOCABULARY, tokenizer
from PIL import Image
from tokenizers import Tokenizer, models

from gymnast_pi0.inputs import PromptEncoder, resize_with_pad
from gymnast_pi0.statistics import read_statistics, units


@pytest.mark.parametrize(("height", "width", "inner"), [(120, 80, (56, 37)), (30, 50, (33, 56)), (56, 56, (56, 56))])
def test_pictures_are_resized_as_pillow_does_and_padded_in_the_middle(height, width, inner):
    smooth = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC))
    wanted = np.zeros((56, 56, 3), np.uint8)
    top, left = (56 - inner[0]) // 2, (56 - inner[1]) // 2
    resized = Image.fromarray(picture).resize(inner[::-1], Image.Resampling.BILINEAR)
    wanted[top : top + inner[0], left : left + inner[1]] = np.asarray(resized)
    found = resize_with_pad(torch.from_numpy(picture.copy())[None, None], 56)
    assert found.shape == (1, 1, 3, 56, 56) and found.min() >= -1 and found.max() <= 1
    levels = ((found[0, 0].permute(1, 2, 0) + 1) * 127.5).round().numpy()
    assert np.abs(levels - wanted).max() <= 1


def test_prompts_are_pictures_then_bos_words_newline_then_padding():
    made = tokenizer()
    prompts = PromptEncoder(made, VOCABULARY, tokens_a_view=4)
    ids, mask = prompts([" push_the\nred block ", "go"], views=2)
    assert (ids[:, :8] == VOCABULARY).all() and (ids[:, 8] == made.token_to_id("<bos>")).all()
    lengths = mask.sum(1).tolist()
    assert lengths[0] == ids.shape[1] > lengths[1]
    assert made.decode(ids[0, 9:].tolist()) == "push the red block\n"
    assert made.decode(ids[1, 9 : lengths[1]].tolist()) == "go\n"
    with pytest.raises(DataError, match="more than the 48"):
        prompts(["word " * 60], views=1)
    with pytest.raises(CheckpointError, match="no <bos>"):
        PromptEncoder(Tokenizer(models.BPE()), VOCABULARY, 4)


def test_units_are_openpis():
    values = torch.tensor([[0.7, -0.14]])
    actions = STATISTICS["actions"]
    scores = units("action", actions, "mean_std", limit=6)
    wanted = (values.double() - torch.tensor(actions["mean"])) / (torch.tensor(actions["std"]) + 1e-6)
    torch.testing.assert_close(scores.normalise(values), wanted, atol=1e-6, rtol=0)
    spans = units("action", actions, "quantiles", limit=6)
    q01, q99 = torch.tensor(actions["q01"]), torch.tensor(actions["q99"])
    wanted = (values - q01) / (q99 - q01 + 1e-6) * 2 - 1
    torch.testing.assert_close(spans.normalise(values).float(), wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(spans.restore(spans.normalise(values)).float(), values)
    assert units("action", actions, "quantiles", width=1, limit=6).width == 1


def test_statistics_come_in_three_layouts(tmp_path):
    lerobot = {"action": STATISTICS["actions"], "observation.state": STATISTICS["state"]}
    (tmp_path / "stats.json").write_text(json.dumps(lerobot))
    assert read_statistics(tmp_path, str(tmp_path / "stats.json")) == STATISTICS
    processor = {f"{name}_{kind}": STATISTICS[name][kind] for name in STATISTICS for kind in ("mean", "std")}
    (tmp_path / "processor_config.json").write_text(json.dumps(processor))
    assert read_statistics(tmp_path, None)["state"] == {k: STATISTICS["state"][k] for k in ("mean", "std")}
    (tmp_path / "norm_stats.json").write_text(json.dumps({"norm_stats": STATISTICS}))
    assert read_statistics(tmp_path, None) == STATISTICS


def test_unusable_statistics_say_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match=r"policy\.args\.statistics"):
        read_statistics(tmp_path, None)
    (tmp_path / "norm_stats.json").write_text("[")
    with pytest.raises(CheckpointError, match="is not valid JSON"):
        read_statistics(tmp_path, None)
    (tmp_path / "norm_stats.json").write_text('{"gripper": {}}')
    with pytest.raises(CheckpointError, match="no statistics of actions; it holds gripper"):
        read_statistics(tmp_path, None)
    with pytest.raises(CheckpointError, match="lack q01, q99; they hold mean, std"):
        units("action", {"mean": [0.0], "std": [1.0]}, "quantiles", limit=6)
    with pytest.raises(ConfigError, match="Did you mean 'mean_std'"):
        units("action", {}, "mean-std", limit=6)
    with pytest.raises(ConfigError, match="7 dimensions"):
        units("action", {"mean": [0.0] * 7, "std": [1.0] * 7}, "mean_std", limit=6)
