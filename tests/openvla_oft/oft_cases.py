"""Golden cases, small policies and made-up data of the OpenVLA-OFT tests."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gymnast_core.types import Episode, Observation
from gymnast_openvla_oft.architecture import Architecture, Tower
from gymnast_openvla_oft.imitation import Imitation
from gymnast_openvla_oft.model import Prompts
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.prompt import pad_prompts

GOLDEN = Path(__file__).parents[1] / "golden" / "openvla_oft"
CASES = ("bridge_1img", "bridge_2img", "bridge_1img_samelen", "libero_1img")
INSTRUCTIONS = ("push the red block to the left", "push the blue block right", "open it")
PAD_TOKEN = 448


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


def observation(batch: int = 3, views: int = 1, size: int = 16) -> Observation:
    generator = torch.Generator().manual_seed(5)
    shape = (batch, views, size, size, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return Observation(images, tuple(INSTRUCTIONS[i % 3] for i in range(batch)))


def episodes(count: int = 4, length: int = 6) -> list[Episode]:
    """Episodes whose actions depend on the instruction and on nothing else."""
    generator = torch.Generator().manual_seed(6)
    made = []
    for i in range(count):
        frames = torch.randint(0, 256, (length, 16, 16, 3), generator=generator, dtype=torch.uint8)
        sign = 1.0 if i % 2 else -1.0
        actions = torch.tensor([0.01, 0.02]).mul(sign).expand(length - 1, 2)
        points = torch.rand(length, 2, 2, generator=generator)
        made.append(Episode(str(i), INSTRUCTIONS[i % 2], frames, actions, points_TJ2=points))
    return made
