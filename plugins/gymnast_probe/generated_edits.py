"""Edits whose picture or instruction a provider makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from gymnast_core.types import Task
from gymnast_probe.instruction_edits import renamed
from gymnast_probe.interfaces import (
    Edit,
    Edited,
    EditorFailed,
    ImageEditor,
    InstructionEditor,
    NotApplicable,
    build_editor,
)


@dataclass(frozen=True)
class GeneratedImage(Edit):
    """A generative editor changes the picture; the goal stays what it was."""

    prompt: str
    """What to change, e.g. "Add a banana to the table; change nothing else." {instruction} is put in."""
    editor: str = "openai"
    """Name in the entry-point group gymnast.image_editors."""
    args: dict[str, Any] = field(default_factory=dict)
    """Of the editor's Config."""

    is_generated: ClassVar[bool] = True

    @cached_property
    def _editor(self) -> ImageEditor:
        return build_editor("image_editors", self.editor, self.args, f"image editor {self.editor}")

    def apply(self, task: Task, rng: np.random.Generator) -> Edited:
        if len(task.frames_TVHWC) > 1 or len(task.cameras) > 1:
            raise NotApplicable("the task starts from several frames, and an editor would change each in another way")
        image_HWC = task.view()[-1].numpy()
        prompt = self.prompt.replace("{instruction}", task.instruction)
        made = self._editor.edit(image_HWC, prompt, seed=int(rng.integers(2**31)))
        found = made.images_HWC
        if found is None or found.shape != image_HWC.shape or found.dtype != np.uint8:
            got = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise EditorFailed(
                f"The image editor {self.editor!r} returned {got} for a picture uint8 {image_HWC.shape}.",
                cost_usd=made.cost_usd,
            )
        frames_TVHWC = torch.from_numpy(found.copy())[None, None]
        return Edited(replace(task, frames_TVHWC=frames_TVHWC), task.instruction, made.cost_usd)

    def prepare(self) -> None:
        assert self._editor is not None

    def close(self) -> None:
        if "_editor" in self.__dict__:
            self._editor.close()


@dataclass(frozen=True)
class ProposedInstruction(Edit):
    """A model looks at the picture and proposes another instruction; success is that of the new one."""

    editor: str = "openai-compatible"
    """Name in the entry-point group gymnast.instruction_editors."""
    args: dict[str, Any] = field(default_factory=dict)
    """Of the editor's Config."""

    is_generated: ClassVar[bool] = True
    changes_goal: ClassVar[bool] = True

    @cached_property
    def _editor(self) -> InstructionEditor:
        return build_editor("instruction_editors", self.editor, self.args, f"instruction editor {self.editor}")

    def apply(self, task: Task, rng: np.random.Generator) -> Edited:
        seed = int(rng.integers(2**31))
        made = self._editor.propose(task.view()[-1].numpy(), task.instruction, seed=seed)
        if not made.instructions:
            raise EditorFailed(f"The instruction editor {self.editor!r} proposed nothing.", cost_usd=made.cost_usd)
        return renamed(task, str(rng.choice(made.instructions)), made.cost_usd)

    def prepare(self) -> None:
        assert self._editor is not None

    def close(self) -> None:
        if "_editor" in self.__dict__:
            self._editor.close()


GENERATED_EDITS: Mapping[str, type[Edit]] = {
    "generated-image": GeneratedImage, "proposed-instruction": ProposedInstruction,
}  # fmt: skip
