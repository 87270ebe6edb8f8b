"""Golden cases, small policies and made-up data of the OpenVLA-OFT tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from gymnast_core.testing.making import camera_names
from gymnast_core.types import ActionChunk, Episode, Observation
from gymnast_openvla_oft.adapters import Factors
from gymnast_openvla_oft.architecture import Architecture, Tower
from gymnast_openvla_oft.components import film_name
from gymnast_openvla_oft.imitation import Imitation
from gymnast_openvla_oft.model import Prompts
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.prompt import pad_prompts

GOLDEN = Path(__file__).parents[1] / "golden" / "openvla_oft"
CASES = ("bridge_1img", "bridge_2img", "bridge_1img_samelen", "libero_1img")
INSTRUCTIONS = ("push the red block to the left", "push the blue block right", "open it")
PAD_TOKEN = 448
QUERY = "language_model.model.layers.0.self_attn.q_proj"
TOWER = "vision_backbone.featurizer.blocks.0.attn.qkv"
SPACE_TOKEN = 150


def _word_tokenizer() -> Tokenizer:
    """Reads an instruction "w24 w121" as the ids 24, 121, and ignores the words that every prompt has around it."""
    words = {"▁" if i == SPACE_TOKEN else f"w{i}": i for i in range(3, PAD_TOKEN - 256)}
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, **words}, unk_token="<unk>"))
    frame = (normalizers.Replace(Regex(r"^In: .* take to "), ""), normalizers.Replace(Regex(r"\?\nOut:$"), ""))
    tokenizer.normalizer = normalizers.Sequence(list(frame))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


WORDS = _word_tokenizer()


def instruction(ids: Sequence[int]) -> str:
    """What the word tokenizer reads as these prompt ids, BOS excepted."""
    return " ".join("▁" if i == SPACE_TOKEN else f"w{i}" for i in ids[1:])


def copy_checkpoint(directory: Path, name: str = "tiny_ckpt") -> Path:
    shutil.copytree(GOLDEN / name, directory)
    # The sharded one is the same model; its copy lacks this file.
    shutil.copy(GOLDEN / "tiny_ckpt" / "preprocessor_config.json", directory)
    return directory


def add_component(directory: Path, component: str, weights: dict[str, Tensor], steps: str = "150000") -> Path:
    """Write a component file as published checkpoints have it."""
    path = directory / f"{component}--{steps}_checkpoint.pt"
    torch.save(weights, path)
    return path


def golden_component(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def film_towers() -> dict[str, Tensor]:
    """The towers that the reference wrapped for FiLM, whole, under the names that they have there."""
    plain = load_file(GOLDEN / "tiny_ckpt" / "model.safetensors")
    towers = {film_name(name): x for name, x in plain.items() if name.startswith("vision_backbone.")}
    return towers | golden_component("libero_film_only_params")


def golden_policy(directory: Path, facts: dict[str, Any], **options: Any) -> OpenVLAOFT:
    """The policy with which a golden case was made."""
    bounds = "minmax" if facts.get("norm_type") == "bounds" else "q99"
    chunk = facts.get("num_actions_chunk") or facts["chunk"]
    return OpenVLAOFT(
        OpenVLAOFT.Config(
            checkpoint=str(directory),
            unnorm_key=facts["unnorm_key"],
            action_bounds=bounds,
            chunk_length=chunk,
            **({} if "cameras" in options else {"images": facts.get("num_images", 1)}),
            **options,
        )
    )


def load_tiny(directory: Path | str, key: str = "bridge_dataset", **options: Any) -> OpenVLAOFT:
    """A policy of one image and, unless `options` say otherwise, Bridge's chunks, which no golden file states."""
    facts = {"images": 1, "chunk_length": 5, **options}
    return OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(directory), unnorm_key=key, **facts))


def greedy(policy: OpenVLAOFT) -> ActionChunk:
    return policy.act(observation(size=56), temperature=0.0)


def change_json(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def factors(module: str, weights: dict[str, Tensor], rank: int = 4) -> Factors:
    generator = torch.Generator().manual_seed(len(module))
    outputs, inputs = weights[f"{module}.weight"].shape
    a, b = (torch.randn(shape, generator=generator) for shape in ((rank, inputs), (outputs, rank)))
    return Factors(a, b, scaling=min(rank, 16) / rank)


def tiny_weights() -> dict[str, Tensor]:
    return load_file(GOLDEN / "tiny_ckpt" / "model.safetensors")


def small_config(**imitation: float) -> OpenVLAOFT.Config:
    """A policy from scratch that is quick to run: 2 actions of 2 dimensions on 16x16 images."""
    tower = Tower(patch_size=8, width=16, depth=2, heads=2)
    architecture = Architecture(
        image_size=16,
        dino=tower,
        siglip=tower,
        llm_width=32,
        llm_layers=2,
        llm_heads=2,
        llm_intermediate=64,
        action_low=[-0.02, -0.04],
        action_high=[0.02, 0.04],
        tokenizer_corpus=list(INSTRUCTIONS),
    )
    return OpenVLAOFT.Config(chunk_length=2, architecture=architecture, imitation=Imitation(**imitation))


def rows(ids_BS: Tensor, mask_BS: Tensor) -> list[list[int]]:
    """Token ids without the fixtures' left padding."""
    return [ids[mask.bool()].tolist() for ids, mask in zip(ids_BS, mask_BS, strict=True)]


def golden_prompts(case: dict[str, Tensor]) -> Prompts:
    return pad_prompts(rows(case["input_ids"], case["attention_mask"]), PAD_TOKEN)


def seeing(
    images_BVHWC: Tensor, instructions: Sequence[str], proprio_BP: Tensor | None = None, cameras: Sequence[str] = ()
) -> Observation:
    """What is seen at one moment, without history."""
    names = tuple(cameras) or camera_names(images_BVHWC.shape[1])
    readings = None if proprio_BP is None else proprio_BP[:, None]
    return Observation(images_BVHWC[:, None], tuple(instructions), names, readings)


def observation(batch: int = 3, views: int = 1, size: int = 16) -> Observation:
    generator = torch.Generator().manual_seed(5)
    shape = (batch, views, size, size, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return seeing(images, tuple(INSTRUCTIONS[i % 3] for i in range(batch)))


def episodes(count: int = 4, length: int = 6) -> list[Episode]:
    """Episodes whose actions depend on the instruction and on nothing else."""
    generator = torch.Generator().manual_seed(6)
    made = []
    for i in range(count):
        frames = torch.randint(0, 256, (length, 1, 16, 16, 3), generator=generator, dtype=torch.uint8)
        sign = 1.0 if i % 2 else -1.0
        actions = torch.tensor([0.01, 0.02]).mul(sign).expand(length - 1, 2)
        points = torch.rand(length, 2, 2, generator=generator)
        made.append(Episode(str(i), INSTRUCTIONS[i % 2], frames, actions, points_TJ2=points))
    return made
