"""How fast the OpenVLA-OFT policy acts and learns with frozen vision, against the plain way of doing it.

    python benchmarks/policy_speed.py [--only NAME]

The plain way is built from the same parts: it keeps float32 pixels of every decision for the update and runs the
vision towers on them in every epoch. Both do the same decisions in turn, minibatch by minibatch, so that other jobs on
the machine slow both; times are CPU seconds of one thread, wall seconds on a GPU, where the 7B model runs, too (random
weights, bfloat16, gradient checkpointing). Writes benchmarks/results/policy_speed.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from gymnast_core.types import ActionChunk, Observation
from gymnast_openvla_oft.architecture import Architecture, Tower, checkpoint_config, model_shape
from gymnast_openvla_oft.decoding import choose, score
from gymnast_openvla_oft.dry_run import Pass, forward_flops
from gymnast_openvla_oft.dtypes import DTYPES
from gymnast_openvla_oft.initialise import _fill
from gymnast_openvla_oft.model import Inputs, ModelShape, OFTModel
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.tuning import Tuning, apply_tuning

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
INSTRUCTION = "put the red block on the blue plate"
SEVEN = [1.0] * 7
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Size:
    name: str
    dino: Tower
    siglip: Tower
    llm: tuple[int, int, int, int]
    """Width, layers, heads, MLP width."""
    dtype: str = "float32"
    act_batch: int = 2
    minibatch: int = 2
    trajectories: int = 2
    """Of one group: they share their first frame."""
    decisions: int = 3
    """A trajectory."""
    epochs: int = 2
    checkpointing: bool = False

    def architecture(self) -> Architecture:
        width, layers, heads, mlp = self.llm
        return Architecture(
            image_size=224, dino=self.dino, siglip=self.siglip, llm_width=width, llm_layers=layers, llm_heads=heads,
            llm_intermediate=mlp, action_low=[-x for x in SEVEN], action_high=SEVEN, tokenizer_corpus=[INSTRUCTION],
        )  # fmt: skip


DINO, SIGLIP = Tower(14, 1024, 24, 16), Tower(14, 1152, 27, 16, 3.7362)
PUBLISHED = Size("7B", DINO, SIGLIP, (4096, 32, 32, 11008), "bfloat16", 8, 4, 8, 4, 2, True)
HALF_BILLION = Size("0.5B language model", DINO, SIGLIP, (896, 24, 14, 4864))
"""The published towers under a language model of Qwen2-0.5B's size (with full attention heads)."""
CPU_SIZES = (
    Size("proportions of 7B", Tower(14, 96, 5, 2), Tower(14, 112, 5, 2), (384, 6, 6, 1024)),
    Size("proportions of a 0.5B language model", Tower(14, 192, 7, 3), Tower(14, 208, 7, 4), (192, 6, 3, 512)),
    Size("small language model", Tower(14, 192, 9, 3), Tower(14, 208, 9, 4), (160, 4, 4, 448)),
)


class RandomPolicy(OpenVLAOFT):
    """From scratch, straight on the device: 7B weights do not go through host memory."""

    def _build_model(self, *args: Any) -> OFTModel:
        shape = model_shape(self.description.config)
        model = OFTModel.empty(shape).to(DTYPES[self.config.dtype]).to_empty(device=DEVICE)
        generator = torch.Generator(DEVICE).manual_seed(0)
        with torch.no_grad():
            for name, parameter in sorted(model.named_parameters()):
                _fill(name, parameter, shape.llama.num_hidden_layers, generator)
        model.rebuild_buffers()
        apply_tuning(model, self.config.train)
        return model


@dataclass
class Way:
    """One way to act and learn, and what it took."""

    name: str
    act_seconds: list[float] = field(default_factory=list)
    update_seconds: list[float] = field(default_factory=list)
    kept_bytes: int = 0
    """Of policy inputs kept from acting to the update, without features."""
    feature_bytes: int = 0
    peak_bytes: int = 0
    """Of GPU memory while learning."""


def build(size: Size, mode: str) -> RandomPolicy:
    tuning = Tuning(vision="frozen", lora_rank=32 if mode == "LoRA" else 0, checkpointing=size.checkpointing)
    config = RandomPolicy.Config(
        chunk_length=5, dtype=size.dtype, architecture=size.architecture(), train=tuning
    )  # fmt: skip
    return RandomPolicy(config).eval()


def clock() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def timed(seconds: list[float], run: Callable[[], Any]) -> Any:
    began = clock()
    result = run()
    seconds.append(clock() - began)
    return result


def observations(size: Size) -> list[Observation]:
    """What the trajectories of a group see, decision by decision."""
    generator = torch.Generator().manual_seed(1)
    shape = (size.decisions, size.trajectories, 1, 1, 224, 224, 3)
    frames = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    frames[0] = frames[0, :1]
    return [
        Observation(images, (INSTRUCTION,) * len(images)) for step in frames for images in step.split(size.act_batch)
    ]


def log_prob(policy: OpenVLAOFT, inputs: Inputs, classes_BK: Tensor) -> Tensor:
    """The plain way: a pass of the whole network."""
    logits_BKC = policy.model.action_logits(policy.model(inputs, classes_BK.shape[1]).actions_BKE)
    return score(logits_BKC, classes_BK, 1.0)[0]


def compare(size: Size, mode: str) -> dict[str, Any]:
    """Act and learn both ways. The weights are the same, and so are the probabilities."""
    ours, plain = Way("ours"), Way("plain")
    policy = build(size, mode)
    assert policy.store is not None
    count = policy.chunk_length * policy.action_dim
    kept: list[tuple[Observation, ActionChunk, Inputs, Tensor]] = []
    for seen in [observations(size)[0], *observations(size)]:
        pixels = timed(plain.act_seconds, lambda s=seen: plain_act(policy, s, count))
        chunk = timed(ours.act_seconds, lambda s=seen: policy.act(s, generator=torch.Generator().manual_seed(0)))
        kept.append((seen, chunk, *pixels))
        if len(kept) == 1:
            policy.store.clear()  # that was to warm up
    del kept[0], plain.act_seconds[0], ours.act_seconds[0]
    plain.kept_bytes = sum(inputs.pixels_BVCHW.nbytes for _, _, inputs, _ in kept if inputs.pixels_BVCHW is not None)
    ours.kept_bytes = sum(seen.images_BTVHWC.nbytes for seen, *_ in kept)
    ours.feature_bytes = policy.store.nbytes
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=0.0)
    difference = 0.0
    for epoch in range(size.epochs):
        for seen, chunk, inputs, classes in kept if epoch else [kept[0], *kept]:
            for first in range(0, len(classes), size.minibatch):
                rows = slice(first, first + size.minibatch)
                part = Observation(seen.images_BTVHWC[rows], seen.instructions[rows])
                tokens = chunk.tokens_BLD[rows]  # type: ignore[index]
                given = tokens.flatten(1).to(DEVICE) - policy.codec.first_token
                few = replace(chunk, actions_BLA=chunk.actions_BLA[rows], tokens_BLD=tokens)
                old = Inputs(inputs.pixels_BVCHW[rows].to(DEVICE), policy.prompts(part.instructions, DEVICE))  # type: ignore[index]
                a = step(plain, optimizer, lambda o=old, g=given: log_prob(policy, o, g))
                b = step(ours, optimizer, lambda p=part, f=few: policy.evaluate(p, f).log_prob_BLD.flatten(1))
                difference = max(difference, (a - b).abs().max().item())
    for way in (ours, plain):
        del way.update_seconds[: len(range(0, size.act_batch, size.minibatch))]
    return {"size": size.name, "learns": mode, "ours": asdict(ours), "plain": asdict(plain), "difference": difference}


def plain_act(policy: OpenVLAOFT, seen: Observation, count: int) -> tuple[Inputs, Tensor]:
    with torch.no_grad():
        pixels = policy.images(seen.latest_BVHWC.to(DEVICE))
        inputs = Inputs(pixels, policy.prompts(seen.instructions, DEVICE))
        logits = policy.model.action_logits(policy.model(inputs, count).actions_BKE)
        classes, _ = choose(logits, 1.0, torch.Generator().manual_seed(0))
    return replace(inputs, pixels_BVCHW=pixels.cpu()), classes


def step(way: Way, optimizer: torch.optim.Optimizer, forward: Callable[[], Tensor]) -> Tensor:
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = timed(way.update_seconds, lambda: _step(optimizer, forward))
    if DEVICE.type == "cuda":
        way.peak_bytes = max(way.peak_bytes, torch.cuda.max_memory_allocated())
    return found


def _step(optimizer: torch.optim.Optimizer, forward: Callable[[], Tensor]) -> Tensor:
    optimizer.zero_grad()
    found = forward()
    (-found.mean()).backward()
    optimizer.step()
    return found.detach()


def shares() -> dict[str, float]:
    """Of the operations of one forward pass (five actions of seven dimensions), the share of the vision towers."""
    found = {}
    for size in (PUBLISHED, HALF_BILLION, *CPU_SIZES):
        towers, whole = forward_flops(shape_of(size), Pass(1, 35))
        found[size.name] = towers / whole
    return found


def shape_of(size: Size) -> ModelShape:
    return model_shape(checkpoint_config(size.architecture(), 32_000 - 256 if size is PUBLISHED else 400, "x"))


def markdown(results: list[dict[str, Any]], share: dict[str, float]) -> str:
    lines = [
        "# Acting and learning with frozen vision",
        "",
        f"`python benchmarks/policy_speed.py`; {where()}. Decisions a second, medians over minibatches; the plain way",
        "keeps float32 pixels and runs the towers in every epoch. Both ways take turns on the same weights.",
        "",
        "| model | towers' share of a forward pass | learns | acts: plain, ours | learns: plain, ours | gain | largest "
        "difference of log-probabilities |",
        "|---|---|---|---|---|---|---|",
    ]
    sizes = {size.name: size for size in (PUBLISHED, *CPU_SIZES)}
    for result in results:
        size = sizes[result["size"]]
        ways = [result[name] for name in ("plain", "ours")]
        acts = [min(size.act_batch, size.trajectories) / median(way["act_seconds"]) for way in ways]
        learns = [min(size.minibatch, size.act_batch) / median(way["update_seconds"]) for way in ways]
        speeds = f"{acts[0]:.2f}, {acts[1]:.2f} | {learns[0]:.2f}, {learns[1]:.2f} | {learns[1] / learns[0]:.2f}x"
        label = f"{size.name} | {share[size.name]:.0%} | {result['learns']}"
        lines.append(f"| {label} | {speeds} | {result['difference']:.1e} |")
    first = results[0]
    ratio = first["plain"]["kept_bytes"] / first["ours"]["kept_bytes"]
    feature = 256 * (1024 + 1152) * 2 / 2**20
    lines += [
        "",
        f"Policy inputs kept for the update: {ratio:.1f} times smaller as uint8 frames (224 x 224) than as float32",
        "pixels. Features are kept besides, within `train.feature_store_mib` of host memory",
        f"({feature:.2f} MiB a frame in the 7B model, bfloat16), and can be dropped at any time.",
        "",
        "What reuse can gain depends on the towers' share s of a forward pass. A step costs s for the towers and, for",
        "the rest, a forward pass and one (LoRA: gradients of activations) or two (full) backward passes of its size;",
        "reuse leaves the rest. With gradient checkpointing, the rest takes a forward pass more.",
        "",
        "| model | s | bound, LoRA | bound, full |",
        "|---|---|---|---|",
    ]
    for name, s in share.items():
        bounds = [(s + n * (1 - s)) / (n * (1 - s)) for n in (2, 3)]
        lines.append(f"| {name} | {s:.1%} | {bounds[0]:.2f}x | {bounds[1]:.2f}x |")
    if DEVICE.type == "cuda":
        lines += ["", "Peak GPU memory while learning, GiB (plain, ours):"]
        for result in results:
            peaks = [result[name]["peak_bytes"] / 2**30 for name in ("plain", "ours")]
            lines.append(f"- {result['size']}, {result['learns']}: {peaks[0]:.1f}, {peaks[1]:.1f}")
    else:
        lines += ["", "No GPU was at hand: the 7B model was not run, its share is counted."]
    return "\n".join(lines) + "\n"


def where() -> str:
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"one thread of {platform.machine()}"
    return f"{name}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="Run this size only, and write nothing.")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    results = []
    for size in (*CPU_SIZES, *((PUBLISHED,) if DEVICE.type == "cuda" else ())):
        for mode in ("LoRA", "full") if only in (None, size.name) else ():
            try:
                results.append(compare(size, mode))
            except torch.OutOfMemoryError:
                print(f"{size.name}, {mode}: this GPU has not enough memory", flush=True)
                continue
            print(json.dumps({k: results[-1][k] for k in ("size", "learns", "difference")}), flush=True)
    text = markdown(results, shares())
    print(text)
    if only is None:
        (RESULTS / "policy_speed.json").write_text(json.dumps({"where": where(), "runs": results}, indent=1) + "\n")
        (RESULTS / "policy_speed.md").write_text(text)


if __name__ == "__main__":
    main()
