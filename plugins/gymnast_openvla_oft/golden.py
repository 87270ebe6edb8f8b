"""Golden actions: what a checkpoint did where it was known to work, kept beside it.

A policy fails quietly when its surroundings change: another crop, a library that masks attention otherwise, a
different dtype. Success merely drops. Recorded actions, log-probabilities and versions tell at load time.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gymnast_core.errors import CheckpointError
from gymnast_core.interfaces import Policy
from gymnast_core.reading import read_object
from gymnast_core.rollouts.sight import find_sight
from gymnast_core.types import ONE_CAMERA, ActionChunk, Needs, Observation, Offers, Task
from gymnast_openvla_oft.weights import read_safetensors, remove, write_json, write_safetensors

TENSORS_FILE = "golden_actions.safetensors"
FACTS_FILE = "golden_actions.json"
REACTIONS = ("warn", "error", "off")
PACKAGES = ("gymnast", "torch", "transformers", "tokenizers", "pillow", "numpy")
NOT_SETTINGS = ("checkpoint", "revision", "base", "golden", "architecture", "imitation", "train")
"""Options of a policy that say where it comes from or how it learns, and not what it does."""
TOLERANCES = {"float32": 1e-3}
COARSE_TOLERANCE = 0.1
"""Of 16-bit weights, whose kernels round differently from one machine to the next."""
INSTRUCTIONS = ("pick up the black bowl", "push the red block to the left", "open the drawer")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GoldenActions:
    """What a policy did, and where."""

    observation: Observation
    chunk: ActionChunk
    """The most likely actions (temperature 0)."""
    environment: Mapping[str, str]
    """Versions, device, dtype and options at the time of recording."""
    policy: str
    """Name of the policy plugin."""
    args: Mapping[str, Any]
    """Its arguments, the checkpoint excepted."""


@dataclass(frozen=True)
class Comparison:
    """How a policy's actions differ from its golden ones."""

    tokens: int
    """Action tokens compared; 0 for a policy that does not decide in tokens."""
    tokens_changed: int
    log_prob_error: float
    """Largest difference over tokens that agree, nats."""
    action_error: float
    """Largest difference, as a fraction of the largest recorded action of that dimension."""
    tolerance: float
    """Of both errors."""
    changes: Mapping[str, tuple[str, str]]
    """What differs in the environment: recorded, and now."""

    @property
    def agrees(self) -> bool:
        return not self.tokens_changed and max(self.log_prob_error, self.action_error) <= self.tolerance

    def __str__(self) -> str:
        actions = f"actions differ by up to {100 * self.action_error:.2g} %"
        tokens = f"{self.tokens_changed} of {self.tokens} action tokens differ, " if self.tokens else ""
        changed = "; ".join(f"{name}: {old} -> {new}" for name, (old, new) in self.changes.items())
        return (
            f"{tokens}log-probabilities by up to {self.log_prob_error:.2g} nats, {actions} (tolerance "
            f"{self.tolerance:g}). Changed since the recording: {changed or 'nothing that is recorded'}."
        )


def environment(policy: Policy) -> dict[str, str]:
    """Versions, device and options that decide which numbers a policy gives."""
    parameter = next(policy.module().parameters())
    found = {"python": platform.python_version(), "device": device_name(parameter.device)}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    found["dtype"] = _name(parameter.dtype)
    found["matmul_precision"] = torch.get_float32_matmul_precision()
    options = getattr(policy, "config", None)
    settings = asdict(options) if options is not None else {}
    for name in ("unnorm_key", "chunk_length", "center_crop", "preparation", "action_bounds"):  # what null stood for
        settings[name] = getattr(policy, name, getattr(getattr(policy, "facts", None), name, settings.get(name)))
    return found | {f"{key}": str(value) for key, value in settings.items() if key not in (*NOT_SETTINGS, "dtype")}


def record(policy: Policy, observation: Observation, name: str, args: Mapping[str, Any]) -> GoldenActions:
    """What a policy does at temperature 0. `name` and `args` say how to build it again."""
    chunk = policy.act(observation, temperature=0.0)
    return GoldenActions(observation, chunk, environment(policy), name, args)


def compare(policy: Policy, golden: GoldenActions) -> Comparison:
    """Act on the golden observations again. One forward pass for a policy with parallel decoding."""
    now, then = policy.act(golden.observation, temperature=0.0), golden.chunk
    here = environment(policy)
    changes = {
        name: (golden.environment.get(name, "absent"), here.get(name, "absent"))
        for name in sorted({*golden.environment, *here})
        if golden.environment.get(name) != here.get(name)
    }
    tolerance = TOLERANCES.get(here["dtype"], COARSE_TOLERANCE)
    if now.actions_BLA.shape != then.actions_BLA.shape:
        return Comparison(0, 0, float("nan"), float("inf"), tolerance, changes)
    actions_BLA = now.actions_BLA.cpu()
    scale_A = then.actions_BLA.abs().amax(dim=(0, 1)).clamp(min=1e-6)
    action_error = ((actions_BLA - then.actions_BLA).abs() / scale_A).max().item()
    if now.tokens_BLD is None or then.tokens_BLD is None:
        return Comparison(0, 0, 0.0, action_error, tolerance, changes)
    same_BLD = now.tokens_BLD.cpu() == then.tokens_BLD
    difference_BLD = (now.log_prob_BLD.cpu() - then.log_prob_BLD).abs()
    log_prob_error = difference_BLD[same_BLD].max().item() if same_BLD.any() else float("inf")
    changed = int((~same_BLD).sum())
    return Comparison(same_BLD.numel(), changed, log_prob_error, action_error, tolerance, changes)


def report(comparison: Comparison, reaction: str) -> None:
    """Say what a comparison at load time found. Raises `CheckpointError` if that is the reaction asked for."""
    if comparison.agrees or reaction == "off":
        return
    message = f"The policy does not reproduce its golden actions: {comparison}"
    if reaction == "error":
        raise CheckpointError(f"{message} Restore that, or accept the new actions with `gymnast golden record`.")
    logger.warning("%s Silence this with policy.args.golden=off.", message)


def made_up_observation(image_size: int, needs: Needs, seed: int = 0) -> Observation:
    """A few smooth random images, so that crops and resizes matter, with common instructions. The same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    views, proprio_dim = needs.camera_count, needs.proprio or 0
    coarse = torch.rand(len(INSTRUCTIONS) * views, 3, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, size=(image_size, image_size), mode="bilinear", align_corners=False)
    images_BVHWC = (smooth * 255).to(torch.uint8).movedim(1, -1).unflatten(0, (len(INSTRUCTIONS), views))
    proprio = torch.randn(len(INSTRUCTIONS), proprio_dim, generator=generator) if proprio_dim else None
    names = _names(views) if isinstance(needs.cameras, int) else needs.cameras
    return _one_frame(images_BVHWC, INSTRUCTIONS, names, proprio)


def task_observation(tasks: Sequence[Task], needs: Needs) -> Observation:
    """What a policy of these needs sees at the tasks' start. Raises `ConfigError` if they do not show it."""
    proprio = None if tasks[0].proprio_TP is None else tasks[0].proprio_TP.shape[1]
    sight = find_sight(needs, Offers(tasks[0].cameras, proprio), tasks[0])
    starts = [sight.start(task) for task in tasks]
    readings = [proprio_TP for _, proprio_TP in starts if proprio_TP is not None]
    frames_BTVHWC = torch.stack([frames_TVHWC for frames_TVHWC, _ in starts])
    instructions = [task.instruction for task in tasks]
    return sight.observe(frames_BTVHWC, torch.stack(readings) if readings else None, instructions)


def write(directory: Path, golden: GoldenActions) -> None:
    """Write the two files beside a checkpoint."""
    tensors: dict[str, Tensor | None] = {
        "images": golden.observation.latest_BVHWC,
        "proprio": golden.observation.latest_proprio_BP,
        "actions": golden.chunk.actions_BLA,
        "log_prob": golden.chunk.log_prob_BLD,
        "tokens": golden.chunk.tokens_BLD,
    }
    facts = {
        "instructions": list(golden.observation.instructions),
        "cameras": list(golden.observation.cameras),
        "environment": dict(golden.environment),
        "policy": golden.policy,
        "args": dict(golden.args),
    }
    write_safetensors(directory / TENSORS_FILE, {name: x.cpu() for name, x in tensors.items() if x is not None})
    write_json(directory / FACTS_FILE, facts)


def read(directory: Path) -> GoldenActions | None:
    """The golden actions of a checkpoint, or None. Raises `CheckpointError` for damaged files."""
    if not (directory / FACTS_FILE).is_file():
        return None
    facts, tensors = read_object(directory / FACTS_FILE, CheckpointError), read_safetensors(directory / TENSORS_FILE)
    environment = facts.object("environment")
    for name in environment.values:
        environment.text(name)
    images, actions = (_tensor(tensors, name, directory) for name in ("images", "actions"))
    if images.dtype != torch.uint8 or images.dim() != 5 or actions.dim() != 3:
        raise CheckpointError(f"{directory / TENSORS_FILE} holds no observations and actions. {_again(directory)}")
    cameras = facts.texts("cameras", length=images.shape[1], default=None) or _names(images.shape[1])
    instructions = facts.texts("instructions", length=len(images))
    observation = _one_frame(images, tuple(instructions), tuple(cameras), tensors.get("proprio"))
    chunk = ActionChunk(actions, _tensor(tensors, "log_prob", directory), tensors.get("tokens"))
    if any(x.shape[:1] != images.shape[:1] for x in tensors.values()):
        raise CheckpointError(f"{directory / TENSORS_FILE} holds tensors of different length. {_again(directory)}")
    args = facts.object("args").values
    return GoldenActions(observation, chunk, environment.values, facts.text("policy"), args)


def _tensor(tensors: Mapping[str, Tensor], name: str, directory: Path) -> Tensor:
    if name not in tensors:
        raise CheckpointError(f"{directory / TENSORS_FILE} holds no {name}. {_again(directory)}")
    return tensors[name]


def _again(directory: Path) -> str:
    return f"Record the golden actions again: gymnast golden record {directory}"


def forget(directory: Path) -> None:
    """Remove golden actions, which belong to the weights that they were recorded with."""
    remove((directory / FACTS_FILE, directory / TENSORS_FILE))


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def describe(golden: GoldenActions) -> str:
    """One line for people: how many actions, and where they were recorded."""
    count = golden.chunk.actions_BLA.shape[0] * golden.chunk.actions_BLA.shape[1]
    return f"{count} actions of {golden.policy}; {json.dumps(dict(golden.environment), sort_keys=True)}"


def _one_frame(
    images_BVHWC: Tensor, instructions: tuple[str, ...], cameras: tuple[str, ...], proprio_BP: Tensor | None
) -> Observation:
    """An observation without history."""
    readings = None if proprio_BP is None else proprio_BP[:, None]
    return Observation(images_BVHWC[:, None], instructions, cameras, readings)


def _names(views: int) -> tuple[str, ...]:
    return ONE_CAMERA if views == 1 else tuple(f"camera-{index + 1}" for index in range(views))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
