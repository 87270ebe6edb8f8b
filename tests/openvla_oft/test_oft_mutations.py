"""A value of a checkpoint's JSON files is changed: that is refused or told, or the policy acts as before.

More than CI tries: `OFT_MUTATIONS=500 pytest tests/openvla_oft/test_oft_mutations.py`, other ones with `OFT_SEED=1`.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from oft_cases import INSTRUCTIONS, WORDS, copy_checkpoint, instruction, observation, small_config
from torch import Tensor

from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.types import Observation
from gymnast_openvla_oft.policy import OpenVLAOFT

KEY = "libero_spatial_no_noops"
SEED, COUNT = int(os.environ.get("OFT_SEED", 0)), int(os.environ.get("OFT_MUTATIONS", 120))
FILES = (
    "config.json",
    "dataset_statistics.json",
    "preprocessor_config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
)
ODD = [None, True, False, 0, -1, 2**63, 10**30, 1e30, 1.5, "", "x", "1", [], {}, [[]], [None], {"a": 1}]
FREE = {
    rf"dataset_statistics\.json {KEY} action (q01|q99) \d+": "a measured number; only golden actions know it, and its "
    "order among the others is checked",
    rf"dataset_statistics\.json {KEY} action mask \d+": "which dimensions were normalised is a choice",
    r"config\.json tiny_timm_kwargs \d num_heads": "no tensor shows it, and no published checkpoint states it",
    r"config\.json tiny_timm_kwargs \d$": "as above, where the number of heads is left out with the rest",
    r"config\.json llm_max_length": "longer prompts are refused",
    r"tokenizer\.json (?!model vocab \S+$)": "how a text becomes ids is what the file says; that there is one word an "
    "id, BOS first and no end, is checked",
}
"""What decides the actions and stands nowhere else, and why."""


@dataclass(frozen=True)
class Mutation:
    file: str
    path: tuple[str | int, ...]
    change: str
    value: Any

    def __str__(self) -> str:
        return f"{self.file} {' '.join(map(str, self.path))}"


@dataclass(frozen=True)
class Sound:
    """A checkpoint before any change."""

    directory: Path
    unnorm_key: str | None
    size: int
    """Pixels a side of its images."""
    words: tuple[str, ...]
    free: dict[str, str]

    def behave(self, directory: Path) -> tuple[Tensor, Tensor]:
        """What the policy in `directory` does, its facts left to the files."""
        policy = OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(directory), unnorm_key=self.unnorm_key))
        made = observation(size=self.size)
        seen = Observation(made.images_BTVHWC, self.words, made.cameras)
        chunk = policy.act(seen, temperature=0.0)
        return chunk.actions_BLA, chunk.log_prob_BLD


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """The sharded golden checkpoint, with the files that a tokenizer has."""
    directory = copy_checkpoint(tmp_path_factory.mktemp("oft") / "published", "tiny_ckpt_sharded")
    WORDS.save(str(directory / "tokenizer.json"))
    said = {"tokenizer_class": "LlamaTokenizer", "model_max_length": 1e30, "bos_token": "<s>", "padding_side": "right"}
    (directory / "tokenizer_config.json").write_text(json.dumps(said))
    words = tuple(instruction([1, *ids]) for ids in ([24, 121, 77], [5, 6, 7, 8], [140, 17]))
    return Sound(directory, KEY, 56, words, FREE)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """One that was trained from scratch and saved here: its weights know the files, so that nothing is free."""
    directory = tmp_path_factory.mktemp("oft") / "own"
    OpenVLAOFT(small_config()).save(directory)
    return Sound(directory, None, 16, INSTRUCTIONS, {})


def mutations(directory: Path, count: int, seed: int) -> Iterator[Mutation]:
    draw = random.Random(seed)
    contents = {name: json.loads((directory / name).read_text()) for name in FILES if (directory / name).is_file()}
    for number in range(count):
        file = list(contents)[number % len(contents)]
        node: Any = contents[file]
        path: tuple[str | int, ...] = ()
        while isinstance(node, dict | list) and node and (not path or draw.random() < 0.85):
            key = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
            node, path = node[key], (*path, key)
        yield Mutation(file, path, *change_of(node, draw))


def change_of(value: Any, draw: random.Random) -> tuple[str, Any]:
    """What becomes of a value: gone, of another type, or of its type and wrong."""
    kind = draw.random()
    if kind < 0.15:
        return "left out", None
    if kind < 0.55 or value is None:
        return "set", draw.choice(ODD)
    if isinstance(value, bool):
        return "set", not value
    if isinstance(value, int | float):
        return "set", draw.choice([value + 1, value * 2, -value - 1, value / 3, value * 1.25 + 0.05, str(value)])
    if isinstance(value, str):
        return "set", draw.choice([value + "x", value[:-1], value.upper(), 5])
    if isinstance(value, list):
        return "set", draw.choice([value[:-1], value + value[-1:], value[::-1], [*value, 0.0]])
    return "set", draw.choice([list(value), {**value, "unknown": 1}, {}])


def apply(directory: Path, mutation: Mutation) -> None:
    path = directory / mutation.file
    content = json.loads(path.read_text())
    node = content
    for key in mutation.path[:-1]:
        node = node[key]
    if mutation.change == "left out":
        del node[mutation.path[-1]]
    else:
        node[mutation.path[-1]] = copy.deepcopy(mutation.value)
    path.write_text(json.dumps(content))


def outcome(run: Callable[[], tuple[Tensor, Tensor]], before: tuple[Tensor, Tensor]) -> str:
    try:
        after = run()
    except (CheckpointError, ConfigError) as error:
        assert len(str(error)) < 1500
        return "refused"
    except DataError:
        return "refused when acting"
    same = all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(before, after, strict=True))
    return "the same" if same else "other actions"


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("kind", ["published", "own"])
def test_no_change_of_a_json_file_gives_other_actions_without_a_word(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, part: int, caplog: pytest.LogCaptureFixture
) -> None:
    sound: Sound = request.getfixturevalue(kind)
    with caplog.at_level(logging.WARNING):
        before = sound.behave(sound.directory)
    usual, directory, found = len(caplog.records), tmp_path / "changed", []
    for mutation in mutations(sound.directory, COUNT // 6, seed=6 * SEED + part):
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(sound.directory, directory)
        apply(directory, mutation)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            word = outcome(lambda: sound.behave(directory), before)
        told = len(caplog.records) > usual
        free = any(re.match(pattern, str(mutation)) for pattern in sound.free)
        if word not in ("refused", "the same") and not told and not free:
            found.append(f"{mutation} {mutation.change} {mutation.value!r}: {word}")
    assert not found, "\n".join(found)
