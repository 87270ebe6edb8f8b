"""Fixtures of the OpenVLA-OFT tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from oft_cases import CASES, GOLDEN, small_config
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from gymnast_openvla_oft.policy import OpenVLAOFT


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{request.param}.safetensors")


@pytest.fixture
def bridge() -> dict[str, Tensor]:
    return load_file(GOLDEN / "bridge_1img.safetensors")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The golden checkpoint with a tokenizer of single characters added, which it lacks."""
    directory = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN / "tiny_ckpt", directory)
    characters = "".join(chr(code) for code in range(33, 127)) + "▁"
    vocabulary = {"<unk>": 0, "<s>": 1, **{c: 3 + i for i, c in enumerate(characters)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture
def policy() -> OpenVLAOFT:
    return OpenVLAOFT(small_config())
