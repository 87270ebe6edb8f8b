"""Every edit by name, and a task's probes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError, unknown_name
from gymnast_core.interfaces import RewardModel
from gymnast_core.types import Task
from gymnast_probe.generated_edits import GENERATED_EDITS
from gymnast_probe.image_edits import IMAGE_EDITS
from gymnast_probe.instruction_edits import INSTRUCTION_EDITS, renamed
from gymnast_probe.interfaces import Edit, Edited

EDITS: Mapping[str, type[Edit]] = {**INSTRUCTION_EDITS, **IMAGE_EDITS, **GENERATED_EDITS}


def build_edit(label: str, settings: Mapping[str, Any]) -> Edit:
    """The edit `settings["edit"]` with the other settings. Raises `ConfigError` for what does not fit."""
    name = str(settings["edit"])
    if name not in EDITS:
        raise ConfigError(f"edits.{label}: {unknown_name('edit', name, EDITS)}")
    return typed(EDITS[name], {key: value for key, value in settings.items() if key != "edit"}, f"edits.{label}")


def check_judged(edits: Mapping[str, Edit], task: Task, reward_model: RewardModel, key: str) -> None:
    """Raises `ConfigError` for edits that ask for something else where the judge would go on to judge the old goal.
    What is said of a task like `task` holds for all; `key` is where the edits stand in the config."""
    labels = [label for label, edit in edits.items() if edit.changes_goal]
    if not labels:
        return
    objection = reward_model.objection(renamed(task, "another instruction").task)
    if objection is not None:
        named = " and ".join(f"{key}.{label}" for label in labels)
        raise ConfigError(
            f"{named}: success would have to be that of another instruction, and this judge cannot say it. "
            f"{objection} Or leave {'it' if len(labels) == 1 else 'them'} out: name the other edits, {key}.LABEL={{}}."
        )


def edit_task(edit: Edit, label: str, task: Task, seed: int) -> Edited:
    """The edited task: the same for the same seed, label and task, whatever else is probed."""
    digest = hashlib.sha256(f"{seed}\0{label}\0{task.id}".encode()).digest()
    return edit.apply(task, np.random.default_rng(list(digest[:16])))
