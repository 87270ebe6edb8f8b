"""`python -m gymnast_libero.random_policy FOLDER`: a small OpenVLA-OFT with random weights, in the layout of the
published LIBERO checkpoints: to try everything around a policy before 15 GB of weights are fetched. Needs gymnast."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

UNNORM_KEY = "libero_spatial_no_noops"
STEPS = "150000"
"""What the names of published component files say of the training."""
CHUNK = 8
SAID_BY_GYMNAST = (
    "action_bounds", "cameras", "center_crop", "num_actions_chunk", "num_images_in_input", "preparation",
    "proprio_dim", "use_proprio",
)  # fmt: skip
"""Entries of `config.json` that published checkpoints lack."""
ACTION = ([-0.8, -0.8, -0.9, -0.12, -0.17, -0.2, 0.0], [0.9, 0.9, 0.9, 0.15, 0.18, 0.2, 1.0])
"""About what LIBERO's demonstrations span (q01, q99)."""
PROPRIO = ([-0.4, -0.3, 0.4, 1.5, -3.6, -1.8, 0.0, -0.04], [0.2, 0.4, 1.4, 3.7, 3.6, 0.7, 0.04, 0.0])
WORDS = ("pick up the black bowl and place it on the plate", "open the top drawer of the cabinet", "turn on the stove")


def write_random_policy(folder: Path, *, head: str = "l1", seed: int = 0) -> Path:
    """Write a checkpoint of a few megabytes that sees two cameras of 224 pixels and reads eight numbers.

    `head`: "l1", a regression head as the published ones have, or "tokens", which reinforcement learning needs and
    which SimpleVLA-RL's checkpoints have: those see the main camera alone and read nothing.
    """
    from gymnast_openvla_oft.architecture import Architecture, Tower
    from gymnast_openvla_oft.policy import OpenVLAOFT

    tower, regression = Tower(patch_size=28, width=64, depth=2, heads=2), head == "l1"
    architecture = Architecture(
        image_size=224,
        dino=tower,
        siglip=tower,
        llm_width=64,
        llm_layers=2,
        llm_heads=2,
        llm_intermediate=128,
        action_low=ACTION[0],
        action_high=ACTION[1],
        proprio_low=PROPRIO[0],
        proprio_high=PROPRIO[1],
        tokenizer_corpus=list(WORDS),
        seed=seed,
    )
    config = OpenVLAOFT.Config(
        chunk_length=CHUNK,
        images=2 if regression else 1,
        action_head="l1" if regression else None,
        proprio=regression,
        unnorm_key=UNNORM_KEY,
        architecture=architecture,
    )
    OpenVLAOFT(config).save(folder)
    _as_published(folder)
    return folder


def _as_published(folder: Path) -> None:
    """Names and contents of a published checkpoint's files, where gymnast says more."""
    from safetensors.torch import load_file, save_file

    for path in folder.glob("*--latest_checkpoint.pt"):
        path.rename(path.with_name(path.name.replace("latest", STEPS)))
    _edit(folder / "config.json", lambda held: [held.pop(key, None) for key in SAID_BY_GYMNAST])
    # A gripper's command is no part of the scaling; proprioception has no mask.
    _edit(folder / "dataset_statistics.json", lambda held: held[UNNORM_KEY]["action"]["mask"].__setitem__(6, False))
    # Weights that know nothing of the files beside them.
    weights = folder / "model.safetensors"
    save_file(load_file(weights), weights, {"format": "pt"})


def _edit(path: Path, change: Any) -> None:
    held = json.loads(path.read_text(encoding="utf-8"))
    change(held)
    path.write_text(json.dumps(held, indent=2), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gymnast_libero.random_policy", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--head", choices=("l1", "tokens"), default="l1")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    write_random_policy(chosen.folder, head=chosen.head, seed=chosen.seed)
    print(f"Wrote {chosen.folder}: {', '.join(sorted(path.name for path in chosen.folder.iterdir()))}")


if __name__ == "__main__":
    main()
