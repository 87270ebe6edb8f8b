"""Action tokens are the last ids that the tokenizer has, however many rows the embeddings were given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from oft_cases import PAD_TOKEN, change_json, greedy, load_tiny, small_config
from safetensors.torch import load_file, save_file
from torch import Tensor

from gymnast_core.errors import CheckpointError
from gymnast_core.reading import JsonObject
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.prompt import load_tokenizer
from gymnast_openvla_oft.vocabulary import find_vocabulary

ROWS = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")


def fill(directory: Path, ids: int = PAD_TOKEN) -> None:
    """Give the tokenizer a word for each id, as Llama's has, so that its last ones are actions."""
    path = directory / "tokenizer.json"
    words = json.loads(path.read_text())
    used = set(words["model"]["vocab"].values())
    words["model"]["vocab"] |= {f"filler{i}": i for i in range(ids) if i not in used}
    path.write_text(json.dumps(words))


def resize(directory: Path, rows: int, **config: Any) -> None:
    """The embeddings with so many rows, as `resize_token_embeddings` leaves them; new rows are large."""
    weights = load_file(directory / "model.safetensors")
    width = weights[ROWS[0]].shape[1]
    for name in ROWS:
        more = torch.full((max(rows - len(weights[name]), 0), width), 3.0)
        weights[name] = torch.cat([weights[name], more])[:rows].clone()
    save_file(weights, directory / "model.safetensors")
    text = json.loads((directory / "config.json").read_text())["text_config"]
    change_json(directory / "config.json", text_config={**text, "vocab_size": rows}, **config)


def acted(directory: Path) -> tuple[Tensor, Tensor]:
    chunk = greedy(load_tiny(directory))
    assert chunk.tokens_BLD is not None
    return chunk.actions_BLA, chunk.tokens_BLD


@pytest.mark.parametrize("rows", [448, 449, 450, 480, 512, 576, 1024])
def test_resized_embeddings_give_the_same_actions(words: Path, rows: int) -> None:
    """Cut to the tokenizer ("32000"), with PAD ("32001"), or rounded up; `pad_to_multiple_of` stays 64."""
    fill(words)
    before = acted(words)
    resize(words, rows)
    after = acted(words)
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert load_tiny(words).codec.vocabulary == PAD_TOKEN


@pytest.mark.parametrize("changed", [{"pad_to_multiple_of": 1}, {"pad_to_multiple_of": 8}, {"pad_to_multiple_of": 256}])
def test_what_the_file_calls_padding_does_not_matter_where_the_tokenizer_ends_at_pad(
    words: Path, changed: dict[str, int]
) -> None:
    fill(words)
    before = acted(words)
    change_json(words / "config.json", **changed)
    assert all(torch.equal(x, y) for x, y in zip(before, acted(words), strict=True))


def test_the_tokenizer_alone_is_enough(words: Path) -> None:
    fill(words)
    before = acted(words)
    config = json.loads((words / "config.json").read_text())
    del config["pad_token_id"], config["text_config"]["pad_token_id"]
    (words / "config.json").write_text(json.dumps(config))
    resize(words, 449)
    assert all(torch.equal(x, y) for x, y in zip(before, acted(words), strict=True))


@pytest.mark.parametrize("ids", [300, 447, 449, 512])
def test_a_tokenizer_that_ends_elsewhere_is_refused(words: Path, ids: int) -> None:
    """Another model's, or one to which words were added: actions would slide."""
    fill(words, ids)
    with pytest.raises(CheckpointError, match=rf"tokenizer\.json and config\.json do not say alike .* has {ids} ids"):
        load_tiny(words)


def test_more_words_than_rows(words: Path) -> None:
    fill(words, 513)
    with pytest.raises(CheckpointError, match="has 513 ids, but the embeddings have 512 rows"):
        load_tiny(words)


@pytest.mark.parametrize("rows", [384, 449, 511])
def test_a_tokenizer_without_words_for_actions_cannot_tell_where_they_end(words: Path, rows: int) -> None:
    resize(words, rows)
    with pytest.raises(CheckpointError, match="do not say alike"):
        load_tiny(words)


@pytest.mark.parametrize("number", [25, 447, -1])
def test_ids_with_gaps_or_twice_are_refused(words: Path, number: int) -> None:
    fill(words)
    content = json.loads((words / "tokenizer.json").read_text())
    content["model"]["vocab"]["w24"] = number
    (words / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load_tiny(words)


def test_added_tokens_are_none_of_the_vocabulary(words: Path) -> None:
    """PAD, which the reference adds as id 32000."""
    fill(words)
    tokenizer = load_tokenizer(words)
    tokenizer.add_special_tokens(["<PAD>"])
    assert tokenizer.token_to_id("<PAD>") == PAD_TOKEN
    tokenizer.save(str(words / "tokenizer.json"))
    assert load_tiny(words).codec.vocabulary == PAD_TOKEN


def test_llama_s_numbers(words: Path) -> None:
    """Published: 32000 ids, PAD is 32000, 32064 rows; actions are 31744 to 31999."""
    fill(words, 32000)
    text = {"vocab_size": 32064, "pad_token_id": 32000}
    for rows in (32000, 32001, 32064, 32128):
        config = {"pad_token_id": 32000, "text_config": {**text, "vocab_size": rows}, "pad_to_multiple_of": 64}
        assert find_vocabulary(JsonObject(config, "config.json", CheckpointError), load_tokenizer(words)) == 32000


def test_other_numbers_of_bins_are_stated_twice(words: Path, tmp_path: Path) -> None:
    change_json(words / "config.json", n_action_bins=255)
    with pytest.raises(CheckpointError, match=r"config\.json: n_action_bins is 255, and published models have 256"):
        load_tiny(words)
    OpenVLAOFT(small_config()).save(tmp_path)
    save_file(
        load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors"
    )  # what it says of files is gone
    change_json(tmp_path / "config.json", n_action_bins=128)
    with pytest.raises(CheckpointError, match=r"n_action_bins is 128, but action_token_ids are the 256 ids"):
        OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(tmp_path)))
