"""Writes action-conditioned Wan models of a few thousand random weights, in each of the layouts that are read."""

from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from gymnast_wan.world_model import Wan

SIZE, WIDTH = 16, 7
TINY = {"preset": "tiny", "dtype": "float32", "device": "cpu"}
FACTS = {"heads": 2, "context": 5, "chunk": 4, "lead_in": "zeros", "rest_action": [0.0] * 6 + [-1.0]}
FACTS |= {"action_scale": [1.0], "action_offset": [0.0], "shift": 5.0, "denoising_steps": 2}

RLINF = {
    "condition_embedder.tokens": "action_mlp1",
    "condition_embedder.frames": "action_mlp2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "patch_embedding": "patch_embedding",
    "proj_out": "head.head",
}
RLINF_BLOCK = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn1.norm_q": "self_attn.norm_q",
    "attn1.norm_k": "self_attn.norm_k",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.norm_q": "cross_attn.norm_q",
    "attn2.norm_k": "cross_attn.norm_k",
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}


def stir(world: Wan, seed: int = 0) -> Wan:
    """Weights under which actions, noise and pixels all matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in [*world.network.parameters(), *world.codec.vae.parameters()]:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return world


def write_checkpoint(folder: Path, **args: object) -> Path:
    stir(Wan(Wan.Config(**{**TINY, **args}))).save(folder)
    return folder


def rlinf_weights(world: Wan) -> dict[str, torch.Tensor]:
    """The transformer's weights by the names that RLinf's fork of DiffSynth-Studio gives them."""
    found = {}
    for name, tensor in world.network.transformer.state_dict().items():
        if name == "scale_shift_table":
            name = "head.modulation"
        elif name.startswith("blocks."):
            block, rest = name.split(".", 2)[1:]
            part, _, last = rest.rpartition(".")
            name = f"blocks.{block}." + (f"{RLINF_BLOCK[part]}.{last}" if part else "modulation")
        else:
            head = next(ours for ours in RLINF if name.startswith(ours + "."))
            name = RLINF[head] + name.removeprefix(head)
        found[name] = tensor.clone()
    return found


def write_rlinf(folder: Path, world: Wan) -> Path:
    """`model-00001.safetensors` and `model-00002.safetensors`."""
    folder.mkdir()
    weights = rlinf_weights(world)
    names = sorted(weights)
    for index, part in enumerate((names[:9], names[9:]), start=1):
        save_file({name: weights[name] for name in part}, folder / f"model-0000{index}.safetensors")
    return folder


def write_wan(folder: Path, **config: object) -> WanTransformer3DModel:
    """Wan as diffusers saves it, which knows texts and no actions."""
    sizes = {"num_attention_heads": 2, "attention_head_dim": 6, "in_channels": 4, "out_channels": 4, "text_dim": 3}
    sizes |= {"freq_dim": 8, "ffn_dim": 16, "num_layers": 1}
    torch.manual_seed(1)
    transformer = WanTransformer3DModel(**{**sizes, **config})
    transformer.save_pretrained(folder / "transformer")
    return transformer
