"""Measuring a component on held-out episodes, and the pictures that go with the numbers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from gymnast_core.interfaces import Trainable
from gymnast_core.runs.atomic import atomic_directory
from gymnast_core.seeds import seeded_generator
from gymnast_core.training.answers import checked_numbers
from gymnast_core.types import Episode

logger = logging.getLogger(__name__)


@runtime_checkable
class Illustrates(Protocol):
    """What a component may define beside `validate`."""

    def illustrate(self, episodes: Sequence[Episode], directory: Path, *, generator: torch.Generator) -> None:
        """Write pictures of the quality on held-out episodes into `directory`, which exists and is empty.

        Called at every validation with the weights that are validated (in evaluation mode, without gradients); the
        files appear in RUN/validation/step-000123/. All randomness comes from `generator`, the same at every step.
        """


def measure(component: Trainable, episodes: Sequence[Episode], seed: int, pictures: Path | None) -> dict[str, float]:
    """`component.validate`, in the weights' own precision; what it illustrates becomes folder `pictures`, if any.

    Raises `ContractError` if that is not numbers by name.
    """
    device = next(component.module().parameters()).device.type
    # Validation runs inside a training step: bf16-mixed must not change what is measured.
    with torch.no_grad(), torch.autocast(device, enabled=False):
        found = component.validate(episodes, generator=seeded_generator(seed, "validation"))
        numbers = checked_numbers(component, "validate", found)
        if pictures is not None and isinstance(component, Illustrates):
            try:
                with atomic_directory(pictures) as folder:
                    component.illustrate(episodes, folder, generator=seeded_generator(seed, "illustrate"))
            except Exception as error:
                # Hours of training must not end because a picture of them cannot be written.
                logger.warning("No pictures in %s: %s: %s", pictures, type(error).__name__, error)
    return numbers
