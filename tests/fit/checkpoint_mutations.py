"""Random damage to checkpoint folders: each gives one clear error, or the result of the undamaged folder.

    python tests/fit/checkpoint_mutations.py 5000 --seed 3

tries more of it than the test does. A failure names the seed and the number that repeat it.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gymnast_core.errors import GymnastError
from gymnast_core.types import Task, one_camera
from gymnast_success_classifier.reward import SuccessClassifier
from gymnast_worldgym.world_model import WorldGym

VAE = Path(__file__).parents[1] / "golden" / "worldgym" / "vae_tiny"
RECOMMENDED = "a recommendation for imagining, the user's to change; stated in no other place"
PLACE = "where the autoencoder lies on this machine, the user's to change"
FREE = {
    "sampling.denoising_steps": RECOMMENDED,
    "sampling.guidance": RECOMMENDED,
    "sampling.stabilization_level": RECOMMENDED,
    "sampling.horizon": RECOMMENDED,
    "sampling.streaming": RECOMMENDED,
    "autoencoder.vae": PLACE,
    "autoencoder.vae_revision": PLACE,
    "autoencoder.vae_subfolder": PLACE,
    "autoencoder.vae_batch": "frames at a time: memory, and rounding",
}
"""Keys whose values may be changed to others that load, with another result."""
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 10**6, 10**30, 0.5, 1.5, -2.5, 1e308, "", "2", "pixel", "flow", "x0", "same",
    "null", "../..", [], [1], [16, 16], [1.0, 2.0], ["a"], {}, {"a": 1},
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A kind of checkpoint: how one is made, and what one gives."""

    name: str
    save: Callable[[Path], None]
    result: Callable[[Path], Tensor]


def world(**args: Any) -> WorldGym:
    sizes = dict(
        image_size=[16, 16], patch_size=8, dim=32, layers=1, heads=2, action_dim=4, robot_action_dim=3, window=4
    )
    sizes |= dict(action_scale=[2.0, 3.0, 4.0], prediction="v", rope="pixel", denoising_steps=2)
    model = WorldGym(WorldGym.Config(**{**sizes, "device": "cpu", **args}))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.module().parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def latent_world() -> WorldGym:
    return world(
        image_size=[32, 32], channels=16, patch_size=2, action_dim=10, robot_action_dim=None, action_scale=[1.0],
        codec="autoencoder-kl", vae=str(VAE),
    )  # fmt: skip


def frames(folder: Path) -> Tensor:
    """What the world of a folder imagines from one picture, one chunk of 5 actions past its window."""
    model = WorldGym(WorldGym.Config(checkpoint=str(folder), device="cpu"))
    generator = torch.Generator().manual_seed(1)
    picture = torch.randint(256, (1, *model.architecture.image_size, 3), generator=generator, dtype=torch.uint8)
    state = model.reset([Task("t", "push", one_camera(picture))], generator=generator)
    actions = torch.randn(1, 5, model.action_dim, generator=generator) / 4
    return model.step(state, actions).frames_BLVHWC


def classifier() -> SuccessClassifier:
    instructions = [f"push the {side} block" for side in ("left", "right", "upper")]
    return SuccessClassifier(SuccessClassifier.Config(instructions=instructions, image_size=16, width=8, hidden=16))


def judgement(folder: Path) -> Tensor:
    """How the judge of a folder finds two pictures, by instruction."""
    judge = SuccessClassifier(SuccessClassifier.Config(checkpoint=str(folder)))
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(256, (2, 24, 24, 3), generator=generator, dtype=torch.uint8)
    order = sorted(judge._index, key=str)
    return judge._probabilities([pictures])[:, [judge._index[text] for text in order]]


SUBJECTS = (
    Subject("world model", lambda folder: world().save(folder), frames),
    Subject("latent world model", lambda folder: latent_world().save(folder), frames),
    Subject("success classifier", lambda folder: classifier().save(folder), judgement),
)


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a JSON document stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*above, key)
        yield from paths(part, (*above, key))


def damage(folder: Path, rng: random.Random) -> str:
    """Change one thing in a folder; what was changed, first the key where there is one."""
    if rng.random() < 0.1:
        return _damage_weights(folder / "model.safetensors", rng)
    file = folder / "config.json"
    if rng.random() < 0.15:
        return _damage_text(file, rng)
    config = json.loads(file.read_text())
    path = rng.choice(list(paths(config)))
    holder: Any = config
    for key in path[:-1]:
        holder = holder[key]
    what = _damage_value(holder, path[-1], rng)
    file.write_text(json.dumps(config))
    return f"{'.'.join(str(key) for key in path if isinstance(key, str))}: {what}"


def _damage_value(holder: Any, key: Any, rng: random.Random) -> str:
    value, kind = holder[key], rng.choice(["delete", "rename", "odd", "near", "near", "near", "copy"])
    if kind == "delete":
        del holder[key]
        return "deleted"
    if kind == "rename" and isinstance(key, str):
        holder[key[:-1] + rng.choice("xyz_")] = holder.pop(key)
        return "renamed"
    if kind == "copy" and isinstance(holder, dict):
        other = rng.choice(list(holder))
        holder[key] = copy.deepcopy(holder[other])
        return f"is now {other}'s {holder[key]!r}"
    holder[key] = _near(value, rng) if kind == "near" else copy.deepcopy(rng.choice(ODD_VALUES))
    return f"is now {holder[key]!r}"


def _near(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([value + 1, value - 1, 2 * value, -value, float(value), str(value)])
    if isinstance(value, float):
        return rng.choice([value * 1.01, -value, value + 1, int(value), str(value), value * 1e300])
    if isinstance(value, str):
        return rng.choice([value + "x", value[:-1], value.upper(), value + " ", value[::-1]])
    if isinstance(value, list):
        return rng.choice([value[::-1], value[:-1], [*value, *value[:1]], value * 2])
    return rng.choice(ODD_VALUES)


def _damage_text(file: Path, rng: random.Random) -> str:
    data = bytearray(file.read_bytes())
    kind = rng.choice(["cut", "byte", "mark", "deep", "twice", "empty"])
    if kind == "cut":
        del data[rng.randrange(len(data)) :]
    elif kind == "byte":
        data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == "mark":
        data[:0] = b"\xef\xbb\xbf"
    elif kind == "deep":
        data = bytearray(b"[" * 5000)
    elif kind == "twice":
        data = bytearray(data.replace(b"{", b'{"channels": 3, "channels": 3, ', 1))
    else:
        data.clear()
    file.write_bytes(data)
    return f"text: {kind}"


def _damage_weights(file: Path, rng: random.Random) -> str:
    data = bytearray(file.read_bytes())
    if rng.random() < 0.5:
        del data[rng.randrange(len(data)) :]
        file.write_bytes(data)
        return "weights: cut"
    # Of the header alone: a tensor's numbers have no checksum, so that any finite ones are as good as any others.
    header = 8 + int.from_bytes(data[:8], "little")
    place = rng.randrange(header)
    data[place] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    return f"weights: a bit of the header, byte {place}"


def attempt(subject: Subject, whole: Path, expected: Tensor, rng: random.Random) -> str | None:
    """Damage a copy and load it; what is wrong with what came of it, or None."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "checkpoint"
        shutil.copytree(whole, folder)
        what = f"{subject.name}: {damage(folder, rng)}"
        try:
            found = subject.result(folder)
        except GymnastError as error:
            text = str(error)
            named = str(folder) in text or "No autoencoder folder" in text
            wrong = "\n" in text or len(text) > 1500 or not named
            free = any(f"{key}:" in what for key in FREE)
            return f"{what}: an unclear error: {text[:500]}" if wrong and not free else None
        except Exception as error:
            return f"{what}: {type(error).__name__}: {error}"
        if torch.equal(found, expected) or any(f"{key}:" in what for key in FREE):
            return None
        return f"{what}: another result, without a word"


def failures(count: int, seed: int) -> list[str]:
    """What is wrong with the outcome of `count` mutations, with the numbers that repeat them."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        known = []
        for index, subject in enumerate(SUBJECTS):
            folder = Path(scratch) / str(index)
            subject.save(folder)
            known.append((subject, folder, subject.result(folder)))
        for number in range(count):
            rng = random.Random(f"{seed}/{number}")
            wrong = attempt(*known[rng.choice([0, 0, 0, 1, 2, 2])], rng)
            if wrong is not None:
                found.append(f"seed {seed}, number {number}: {wrong}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("\n".join([*failures(options.count, options.seed), f"{options.count} mutations tried"]))
