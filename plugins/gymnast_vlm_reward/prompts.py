"""Prompts as versioned YAML files: a version's text never changes, so that cached answers stay true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import yaml

from gymnast_core.errors import ConfigError, unknown_name
from gymnast_core.types import Task


@dataclass(frozen=True)
class Prompt:
    """What a judge is told, and which scores it may give."""

    version: str
    """Name of the file, e.g. "binary-v1"."""
    scores: tuple[float, ...]
    """Allowed scores, rising, all in [0, 1]."""
    system: str
    question: str
    rubric: str
    criteria: str
    frame: str
    text_answer: str
    schema_answer: str

    def ask(self, task: Task, rubrics: Mapping[str, str], *, schema: bool) -> tuple[str, str]:
        """The texts before and after the frames.

        `rubrics` holds per-task rubrics by task id or instruction; they replace the prompt's own. The task's
        `partial_credit_criteria` say what counts as half a success in rubrics that have a place for it ({criteria}).
        """
        rubric = rubrics.get(task.id) or rubrics.get(task.instruction) or self.rubric
        criteria = (task.partial_credit_criteria or self.criteria).strip()
        # Not str.format: a user's rubric may contain braces of its own.
        rubric = rubric.strip().replace("{criteria}", criteria)
        before = self.question.replace("{rubric}", rubric).replace("{instruction}", task.instruction.strip())
        after = self.schema_answer if schema else self.text_answer.replace("{choices}", self.choices)
        return before, after

    @property
    def choices(self) -> str:
        """The allowed scores in words, e.g. "0, 0.5 or 1"."""
        names = [f"{score:g}" for score in self.scores]
        return f"{', '.join(names[:-1])} or {names[-1]}"

    def number(self, position: int, count: int, step: int) -> str:
        """The text before an image: its 1-based position among those shown, and its time step in the episode."""
        return self.frame.format(position=position, count=count, step=step)

    def schema(self) -> dict[str, object]:
        """JSON schema of an answer."""
        reasoning = {"type": "string", "description": "What happens in the frames, in two or three sentences."}
        # Of texts: some services know no enums of numbers, and all know these.
        values = [f"{score:g}" for score in self.scores]
        score = {"type": "string", "enum": values, "description": "The score, as the rubric defines it."}
        return {
            "type": "object",
            "properties": {"reasoning": reasoning, "score": score},
            "required": ["reasoning", "score"],
            "additionalProperties": False,
        }


def prompt_versions() -> list[str]:
    """The prompts that this package has."""
    files = resources.files(__package__).joinpath("prompts").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_prompt(version: str) -> Prompt:
    """The prompt of that name; `ConfigError` if there is none."""
    if version not in prompt_versions():
        raise ConfigError(f"reward_model.args.prompt: {unknown_name('prompt', version, prompt_versions())}")
    text = resources.files(__package__).joinpath("prompts", f"{version}.yaml").read_text(encoding="utf-8")
    fields = yaml.safe_load(text)
    return Prompt(version=version, scores=tuple(float(score) for score in fields.pop("scores")), **fields)
