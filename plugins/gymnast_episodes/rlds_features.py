"""Which features of an RLDS dataset are its cameras, actions, readings and instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from gymnast_core.errors import DataError, unknown_name
from gymnast_episodes.crops import wanted_cameras
from gymnast_episodes.rlds_layout import About
from gymnast_episodes.tf_example import Example

INSTRUCTIONS = (
    "language_instruction",
    "observation/natural_language_instruction",
    "natural_language_instruction",
)
"""Where the datasets of Open X-Embodiment keep them."""
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
"""How JPEG and PNG files begin."""
_BOOKKEEPING = ("is_first", "is_last", "is_terminal")


@dataclass(frozen=True)
class Camera:
    """A feature with pictures."""

    feature: str
    name: str
    """What episodes call it."""


@dataclass(frozen=True)
class Chosen:
    """What is read of a record."""

    cameras: tuple[Camera, ...]
    action: tuple[str, ...]
    proprio: tuple[str, ...]
    """Empty: none."""
    instruction: str | None
    widths: Mapping[str, int]
    """Numbers a step of actions and readings, where `features.json` says."""
    left_out: tuple[str, ...]
    """Features that are not read."""


def choose(first: Example, about: Mapping[str, About], config: Any, place: str) -> Chosen:
    """What the config asks for, found in the first record.

    Raises `DataError` that lists the features of the right kind where one does not exist, or several are meant.
    """
    kinds = _kinds(first, about)
    images = [name for name, kind in kinds.items() if kind == "image"]
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    texts = [name for name, kind in kinds.items() if kind == "text"]
    wanted = wanted_cameras(config.camera, config.cameras)
    observed = [name for name in images if name.startswith("observation/") and _is_colour(about.get(name))]
    if not wanted and not observed:
        raise DataError(f"{place} has no camera: no feature of observation is a picture. There are: {_all(kinds)}.")
    cameras = [_find("camera", name, images, place) for name in wanted] or observed
    if len(set(cameras)) < len(cameras):
        raise DataError(f"{place}: cameras names one of them twice: {', '.join(wanted)}.")
    action = tuple(_find("action feature", name, numbers, place) for name in config.action.split("+"))
    proprio: tuple[str, ...] = ()
    if config.proprio is not None and (config.proprio != "state" or _matches("state", numbers)):
        proprio = tuple(_find("feature of readings", name, numbers, place) for name in config.proprio.split("+"))
    if config.instruction_feature is not None:
        instruction: str | None = _find("instruction feature", config.instruction_feature, texts, place)
    else:
        instruction = next((name for name in INSTRUCTIONS if name in texts), None)
        if instruction is None and config.instruction is None:
            raise DataError(
                f"{place} has no instructions where they are usual ({', '.join(INSTRUCTIONS)}). Name their feature, "
                f'one of {", ".join(texts) or "none"}: instruction_feature=…; or give one for all: instruction="...".'
            )
    read = {*cameras, *action, *proprio, instruction, *_BOOKKEEPING}
    return Chosen(
        tuple(Camera(name, short) for name, short in zip(cameras, _short(cameras), strict=True)),
        action,
        proprio,
        instruction,
        {name: prod(sizes) for name in (*action, *proprio) if (sizes := _sizes(about.get(name))) is not None},
        tuple(name for name in kinds if name not in read),
    )


def _kinds(first: Example, about: Mapping[str, About]) -> dict[str, str]:
    """Feature -> image, text or number: as `features.json` says, else as its first value looks."""
    found = {}
    for name in first.names():
        begins = first.first_bytes(name)
        if begins is None:
            found[name] = "number"
        elif name in about and about[name].kind != "tensor":
            found[name] = about[name].kind
        else:
            found[name] = "image" if begins.startswith(_MAGIC) else "text"
    return found


def _is_colour(about: About | None) -> bool:
    """Whether pictures have three colours of 8 bits, as far as that is said: depth is no camera."""
    return (
        about is None or about.kind != "image" or (about.dtype == "uint8" and about.shape[-1:] in ((), (3,), (None,)))
    )


def _sizes(about: About | None) -> list[int] | None:
    """The dimensions of a step's numbers, if all are known."""
    if about is None or about.kind != "tensor" or None in about.shape:
        return None
    return [size for size in about.shape if size is not None]


def _find(what: str, name: str, known: Sequence[str], place: str) -> str:
    found = _matches(name, known)
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{place}: the {what} {name!r} could be {' or '.join(found)}. Give the whole name.")
    parts = [other for other in known if other.startswith(f"{name}/")]
    hint = f" Several are put side by side: {'+'.join(parts)}." if parts else ""
    raise DataError(f"{place}: {unknown_name(what, name, known)}{hint}")


def _matches(name: str, known: Sequence[str]) -> list[str]:
    return [name] if name in known else [other for other in known if other.endswith(f"/{name}")]


def _short(features: Sequence[str]) -> list[str]:
    """Last parts of names where they differ, else what follows `observation/`."""
    last = [name.rpartition("/")[2] for name in features]
    whole = [name.removeprefix("observation/").replace("/", ".") for name in features]
    return last if len(set(last)) == len(last) else whole


def _all(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
